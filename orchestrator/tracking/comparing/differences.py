"""What is otherwise in a store than the journals say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from typing import Any, Literal

from orchestrator.store.identities import PARENT_TAG, SEQUENCE_TAG, WHOLE_SEQUENCE
from orchestrator.tracking.comparing.expected import ExpectedRun, Identity, Point, identity_of
from orchestrator.tracking.logged_models import find_models, is_ready
from orchestrator.tracking.runs import ABOVE_TAG, DESCRIBED_TAG, Runs, outputs_of

OUR_TAGS = "orchestrator."

# What mends it: copying the journal again; deleting the one too many; setting the tag that says below which run it hangs;
# or, where what is there cannot be changed, another run in its place
Mend = Literal["copy", "delete", "hang", "replace"]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the journals say: in words, of what, and how it is mended."""

    line: str
    identity: Identity
    mend: Mend
    run_id: str = ""
    model_id: str = ""
    above: str = ""


Found = dict[Identity, list[Any]]


def find_runs(runs: Runs, expected: Mapping[Identity, ExpectedRun]) -> Found:
    """The runs of a store that have the identities of those that are expected, the fullest of each first."""
    queries: dict[str, None] = {}
    for sequence_id, _, parent in expected:
        if sequence_id:
            queries[f"tags.`{SEQUENCE_TAG}` = '{sequence_id}'"] = None
        else:
            # one question for a search and all of its trials
            queries[f"tags.`{PARENT_TAG}` LIKE '{parent.partition('/')[0]}%'"] = None
    found: Found = {identity: [] for identity in expected}
    for query in queries:
        token = None
        while True:
            page = runs.client.search_runs([runs.experiment_id], query, max_results=1000, page_token=token)
            for run in page:
                found.get(identity_of(run.data.tags), []).append(run)
            token = page.token
            if not token:
                break
    for same in found.values():
        # whichever stays, the same one each time that it is asked
        same.sort(key=lambda run: (-len(run.data.metrics), run.info.run_id))
    return found


def differences(runs: Runs, expected: Mapping[Identity, ExpectedRun], every_point: bool) -> Iterator[Difference]:
    """What differs. `every_point`: also in the points of metrics, of which each takes a question of its own."""
    found = find_runs(runs, expected)
    for identity, wanted in expected.items():
        same = found[identity]
        if not same:
            yield Difference(f"run {wanted.name!r} is missing", identity, "copy")
            continue
        for surplus in same[1:]:
            line = f"run {wanted.name!r} is there {len(same)} times"
            yield Difference(line, identity, "delete", run_id=surplus.info.run_id)
        yield from _of_run(wanted, same[0], identity, found)
        yield from _of_points(runs, wanted, same[0], identity, every_point)
        if wanted.model is not None:
            yield from _of_models(runs, wanted, same[0], identity)


def _of_run(wanted: ExpectedRun, run: Any, identity: Identity, found: Found) -> Iterator[Difference]:
    run_id = run.info.run_id
    if run.info.status != wanted.status or (wanted.status != "RUNNING" and run.info.end_time != wanted.ended):
        line = f"run {wanted.name!r} is {run.info.status} in place of {wanted.status}"
        yield Difference(line, identity, "copy", run_id)
    for key, value in wanted.tags.items():
        if key.startswith(OUR_TAGS) and run.data.tags.get(key) != value:
            yield Difference(f"run {wanted.name!r} has another tag {key}", identity, "copy", run_id)
    if wanted.parent is not None and found.get(wanted.parent):
        above = found[wanted.parent][0].info.run_id
        if run.data.tags.get(ABOVE_TAG) != above:
            yield Difference(f"run {wanted.name!r} hangs below another run", identity, "hang", run_id, above=above)
    missing = set(wanted.params) - set(run.data.params)
    if missing or (wanted.params and identity[1] == str(WHOLE_SEQUENCE) and DESCRIBED_TAG not in run.data.tags):
        yield Difference(f"run {wanted.name!r} lacks {len(missing)} parameter(s)", identity, "copy", run_id)


def _of_points(
    runs: Runs, wanted: ExpectedRun, run: Any, identity: Identity, every_point: bool
) -> Iterator[Difference]:
    run_id = run.info.run_id
    for key, points in wanted.points.items():
        if key not in run.data.metrics:
            yield Difference(f"run {wanted.name!r} lacks the metric {key}", identity, "copy", run_id)
        elif every_point:
            history = runs.client.get_metric_history(run_id, key)
            there = {(metric.step, metric.timestamp, metric.value) for metric in history}
            # a store of another kind may round: what is as good as there is no surplus
            if len(there) < len(points) or not _are_close(points, there):
                line = f"run {wanted.name!r} has {len(there)} points of {key} in place of {len(points)}"
                yield Difference(line, identity, "replace" if there - points else "copy", run_id)


def _are_close(points: set[Point], others: set[Point]) -> bool:
    if len(points) != len(others):
        return False
    for one, other in zip(sorted(points), sorted(others), strict=True):
        if one[:2] != other[:2] or not isclose(one[2], other[2], rel_tol=1e-9):
            return False
    return True


def _of_models(runs: Runs, wanted: ExpectedRun, run: Any, identity: Identity) -> Iterator[Difference]:
    assert wanted.model is not None
    models = find_models(runs.client, runs.experiment_id, wanted.model)
    kept = outputs_of(run)
    # the one that its run names stays
    models.sort(key=lambda model: (model.model_id not in kept, model.model_id))
    if not models or not is_ready(models[0]):
        yield Difference(f"the model of run {wanted.name!r} is missing", identity, "copy", run.info.run_id)
    elif models[0].model_id not in kept:
        yield Difference(f"run {wanted.name!r} does not name its model", identity, "copy", run.info.run_id)
    for surplus in models[1:]:
        line = f"the model of run {wanted.name!r} is there {len(models)} times"
        yield Difference(line, identity, "delete", model_id=surplus.model_id)
