"""The micro-batch that fits: tried from the largest on, noted, and the same result with any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import SequenceFailed, UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training import step as step_module
from orchestrator.training.batches import MicroBatch
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence

MakeSequence = Callable[..., SequencePlan]


def micro_batch_of(sequence: SequencePlan) -> MicroBatch:
    """As a learner has it once it has loaded."""
    found = MicroBatch(sequence, Parallel())
    found.look_up()
    return found


def test_nothing_is_exchanged_before_it_is_looked_up(sequence_of: MakeSequence) -> None:
    """A worker may make a learner alone, when it alone finds that a state is missing."""

    class Alone(Parallel):
        def agree(self, value: Any) -> Any:
            raise AssertionError("the others are not there")

    sequence = sequence_of(training={"micro_batch": "auto"})
    Learner(sequence, sequence.open_stream(), Alone(0, 2))
    with pytest.raises(AssertionError, match="the others are not there"):
        MicroBatch(sequence, Alone(0, 2)).look_up()


def test_by_default_a_worker_reads_its_part_at_once(sequence_of: MakeSequence) -> None:
    assert micro_batch_of(sequence_of()).size == 8
    assert micro_batch_of(sequence_of(training={"micro_batch": 2})).size == 2
    for micro_batch in (None, 2):
        fixed = micro_batch_of(sequence_of(training={"micro_batch": micro_batch}))
        assert not fixed.shrink()
        assert not fixed.file.parent.exists()


def test_each_try_is_the_next_size_that_divides_and_is_noted(sequence_of: MakeSequence) -> None:
    sequence = sequence_of(training={"micro_batch": "auto", "global_batch": 12})
    micro = micro_batch_of(sequence)
    sizes = [micro.size]
    while micro.shrink():
        sizes.append(micro.size)
        assert micro_batch_of(sequence).size == micro.size
    assert sizes == [12, 6, 3, 1]
    other_seed = sequence.model_copy(update={"seed": 99})
    assert micro_batch_of(other_seed).size == 1, "a seed needs no more memory than another"
    other_method = sequence_of(training={"micro_batch": "auto", "global_batch": 12}, methods=["ewc"])
    assert micro_batch_of(other_method).size == 12
    assert [file.suffix for file in micro.file.parent.iterdir()] == [".json"]


@pytest.mark.parametrize("damage", [b"", b"null", b"\xff", b"\0" * 20, b'{"micro_batch": 9, "crc": "00000000"}'])
def test_a_size_whose_note_is_damaged_is_found_anew(sequence_of: MakeSequence, damage: bytes) -> None:
    sequence = sequence_of(training={"micro_batch": "auto", "global_batch": 12})
    micro = micro_batch_of(sequence)
    micro.shrink()
    micro.file.write_bytes(damage)
    assert micro_batch_of(sequence).size == 12


@pytest.fixture
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory for two texts at a time; the sizes that are tried, one for each that ran out of it or fitted."""
    tried: list[int] = []
    train_step = step_module.train_step

    def step(learner: Learner, module: Any, optimizer: Any, made: Any, *where: int) -> Any:
        size = len(made.batches[0].source.ids)
        if not tried or tried[-1] != size:
            tried.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return train_step(learner, module, optimizer, made, *where)

    monkeypatch.setattr("orchestrator.training.task.train_step", step)
    return tried


def test_a_task_that_runs_out_of_memory_begins_anew_with_less(
    sequence_of: MakeSequence, _small_memory: list[int]
) -> None:
    migu = {"tuning": "full", "plugins": [{"name": "migu", "mask_first_task": True, "diagnostics": True}]}
    changes: dict[str, Any] = {"methods": [migu], "stream": {"first": 2, "max_train": 16}}
    sequence = sequence_of("one", training={"micro_batch": "auto"}, **changes)
    run_sequence(sequence, evaluate=False)
    assert _small_memory == [8, 4, 2], "found in the first task, and kept for the second"
    again = sequence_of("one", training={"micro_batch": "auto"}, seeds=[9], **changes)
    run_sequence(again, evaluate=False)
    assert _small_memory == [8, 4, 2], "and for the next sequence"
    plain = sequence_of("two", training={"micro_batch": 2}, **changes)
    assert plain.keys == sequence.keys
    run_sequence(plain, evaluate=False)
    for key in plain.keys[1:]:
        one, other = (Store(Path(s.out)).load(key) for s in (sequence, plain))
        for name, weight in one.weights.items():
            assert torch.equal(other.weights[name], weight), name


@pytest.mark.usefixtures("_small_memory")
def test_a_size_that_was_set_is_kept_and_the_error_too(sequence_of: MakeSequence) -> None:
    with pytest.raises(SequenceFailed, match="OutOfMemoryError: CUDA out of memory"):
        run_sequence(sequence_of(training={"micro_batch": 4}), evaluate=False)


def test_another_word_is_refused(sequence_of: MakeSequence) -> None:
    for wrong in ("most", 0):
        with pytest.raises((UserError, ValueError), match="micro_batch"):
            sequence_of(training={"micro_batch": wrong})
