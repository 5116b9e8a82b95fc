"""Data that a process has read for one sequence, for the next one that is of the same data."""

from __future__ import annotations

from orchestrator.planning.keys import is_unchanged
from orchestrator.planning.sequence_plan import SequencePlan
from streams import Stream

# of more, the one that was asked for longest ago is let go: a process that trains many streams must not hold them all
MOST_KEPT = 2

_kept: dict[str, Stream] = {}


def kept_stream(sequence: SequencePlan) -> Stream:
    """The data of a sequence, as `SequencePlan.open_stream` gives it, and read only if this process has not done so.

    Each sequence's readings of a test split go to the test-access log as ever. Data that changed on the disk since it was
    read is noticed where the sequence was planned with what is there now, whose keys are others.
    """
    # the split too: what was opened sealed never held the test split
    name = f"{sequence.split} {sequence.stream.model_dump_json()}"
    kept = _kept.pop(name, None)
    stream = None
    if kept is not None:
        stream = sequence.watched(kept)
        if not is_unchanged(sequence, stream):
            stream = None
    if stream is None:
        stream = sequence.open_stream()
    _kept[name] = stream
    while len(_kept) > MOST_KEPT:
        del _kept[next(iter(_kept))]
    return stream
