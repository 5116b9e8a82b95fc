"""MLflow's rules for names, and nested settings under flat ones."""

from __future__ import annotations

import hashlib
from typing import Any

from orchestrator.evaluation.scorers import SCORERS
from orchestrator.store.events import ProbeComputed, ScoreComputed

# MLflow's limits on lengths
KEY_LENGTH = 250
RUN_NAME_LENGTH = 250
MODEL_NAME_LENGTH = 500
DATASET_NAME_LENGTH = 500

_MODEL_NAME_FORBIDS = "/:.%\"'"
_KEY_ALLOWS = "_-. /"


def scores_by_key(event: ScoreComputed, scorer: str) -> dict[str, float | None]:
    """A score, and that among the task's own options, by keys such as `accuracy/yelp` and `rouge-l/meetings`."""
    series = SCORERS[scorer].series
    return {f"{series}/{event.task}": event.score, f"{series}_options/{event.task}": event.score_options}


def probes_by_key(event: ProbeComputed) -> dict[str, float | None]:
    """All numbers of a benchmark, by keys such as `probe/hellaswag/acc_norm`."""
    values: dict[str, float | None] = {}
    for metric, number in event.numbers.items():
        values[safe_key(f"probe/{event.probe}/{metric}")] = number
    return values


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by their path, such as `method.plugins.0.name`; a list of plain values stays one value."""
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        items = list(enumerate(values))
    else:
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= flatten(item, f"{prefix}{key}.")
    return flat


def plain_name(name: str) -> str:
    """The name without the signs that a model's name must not have."""
    for sign in _MODEL_NAME_FORBIDS:
        name = name.replace(sign, "-")
    return short(name, MODEL_NAME_LENGTH)


def safe_key(key: str) -> str:
    """The key of a metric or parameter, of which MLflow allows letters, digits and a few signs, and not too many of them."""
    signs: list[str] = []
    for sign in key:
        is_allowed = sign.isalnum() or sign in _KEY_ALLOWS
        signs.append(sign if is_allowed else "-")
    safe = "".join(signs)
    # nor a key that would be another one as the path of a file
    if not {"", ".", ".."}.isdisjoint(safe.split("/")):
        safe = f"{safe.replace('/', '-').replace('.', '-')}-{_digest(key)}"
    return short(safe, KEY_LENGTH)


def short(name: str, length: int) -> str:
    """A name that is cut where it is too long, and still another one than what begins the same."""
    if len(name) <= length:
        return name
    digest = _digest(name)
    return f"{name[: length - len(digest) - 1]}-{digest}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
