"""The answer to each example that a score was computed from, kept beside the score.

`<out>/scores/<key>.predictions.jsonl.gz` has a JSON object on each line, in the order of the split.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.store.integrity import write_whole


class DamagedPredictions(ValueError):
    """A file of predictions is not what was written."""


@dataclass(frozen=True)
class Prediction:
    """The answer of one state to one example.

    `example` is its index in the scored split, `row` the row of the raw split that it came from (counted from 1), `score`
    the scorer's number for it, and `option` the answer when only the task's own options compete (None for models that
    generate).
    """

    example: int
    row: int
    target: str
    prediction: str
    correct: bool
    score: float
    option: str | None = None


def predictions_file(root: Path, key: str) -> Path:
    """Where the predictions of the score of that key are, or would be."""
    return root / "scores" / f"{key}.predictions.jsonl.gz"


def save_predictions(root: Path, key: str, predictions: Iterable[Prediction]) -> None:
    """Write the predictions of a score; the file appears whole or not at all."""
    lines = []
    for prediction in predictions:
        values = asdict(prediction)
        # models that generate have none: a null on each of thousands of lines would say nothing
        if prediction.option is None:
            del values["option"]
        lines.append(json.dumps(values, ensure_ascii=False, separators=(",", ":")))
    file = predictions_file(root, key)
    text = "".join(line + "\n" for line in lines)
    # without a time of its own, so that the same predictions are the same bytes
    write_whole(file, gzip.compress(text.encode(), mtime=0))


def load_predictions(root: Path, key: str) -> list[Prediction] | None:
    """The predictions of a score in the order of the split; None where none were kept. Raises DamagedPredictions."""
    file = predictions_file(root, key)
    try:
        text = gzip.decompress(file.read_bytes()).decode()
        # not `splitlines`, which would cut an answer at the line ends of Unicode that JSON leaves as they are
        lines = text.removesuffix("\n").split("\n")
        return [Prediction(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        raise DamagedPredictions(f"{file}: not readable as predictions ({error})") from error
