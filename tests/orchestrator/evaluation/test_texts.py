"""Tokenised splits that are kept, and batches of examples of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from orchestrator.evaluation.texts import TOKENS_ON_CPU, KeptTexts, batches_by_length
from orchestrator.models.family import Family
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.scoring import score_state
from orchestrator.training.sequence import run_sequence
from streams import Example, Task
from tests.conftest import FAMILIES


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often which task's so many examples are tokenised from now on; nothing is kept from before."""
    counts: Counter[tuple[str, int]] = Counter()
    encode_texts = Family.encode_texts

    def counted(self: Family, task: Task, examples: Sequence[Example]) -> list[list[int]]:
        counts[task.name, len(examples)] += 1
        return encode_texts(self, task, examples)

    monkeypatch.setattr(Family, "encode_texts", counted)
    monkeypatch.setattr("orchestrator.evaluation.scores.KEPT", KeptTexts())
    return counts


@pytest.mark.parametrize("model", FAMILIES)
def test_a_process_tokenises_each_test_split_once(
    model: str, sequence_of: Callable[..., SequencePlan], tokenised: Counter[tuple[str, int]]
) -> None:
    """The 10 test examples of each of two tasks, for three states of two sequences."""
    sequences = [
        sequence_of(model=model, stream={"first": 2}),
        sequence_of(model=model, stream={"first": 2}, seeds=[8]),
    ]
    for sequence in sequences:
        run_sequence(sequence, evaluate=False)
    assert {examples for _, examples in tokenised} == {24}, "training reads other splits"
    tokenised.clear()
    for sequence in sequences:
        for tasks_seen in range(3):
            score_state(sequence, tasks_seen)
    assert tokenised == {(name, 10): 1 for name in sequences[0].tasks}


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_kept_is_what_the_family_reads(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model)
    task = learner.stream.tasks[0]
    kept = KeptTexts()
    for split in ("test", "train", "test"):
        examples = task.read(split)  # type: ignore[arg-type]
        texts = kept.texts(learner.family, task, split, examples)  # type: ignore[arg-type]
        expected = learner.family.features(task, examples)
        assert [texts.feature(index) for index in range(len(texts))] == expected
        assert texts.lengths == [len(feature["source"]) for feature in expected]
        assert texts.num_tokens == sum(len(f["source"]) + len(f["target"]) for f in expected)


def test_other_reading_is_tokenised_anew(learner_of: Callable[..., Learner]) -> None:
    """The length that texts are cut to, the labels that a class is counted in, and how a task is asked."""
    learner = learner_of()
    family = learner.family
    task, other = learner.stream.tasks[:2]
    kept = KeptTexts()

    def read(task: Task) -> list[list[int]]:
        texts = kept.texts(family, task, "test", task.read("test"))
        return [texts.feature(index)["source"] for index in range(len(texts))]

    whole = read(task)
    family.config = family.config.model_copy(update={"max_source": 8})
    assert max(map(len, read(task))) == 8
    family.config = family.config.model_copy(update={"max_source": 48})
    assert read(task) == whole
    assert read(replace(task, instruction="Say it.")) != whole
    assert read(other) != whole
    indices = kept.texts(family, task, "test", task.read("test")).class_indices
    family.labels = ("another label first", *family.labels)
    assert kept.texts(family, task, "test", task.read("test")).class_indices == tuple(i + 1 for i in indices)


def test_what_was_unused_for_longest_is_dropped(
    learner_of: Callable[..., Learner], tokenised: Counter[tuple[str, int]]
) -> None:
    learner = learner_of()
    tasks = learner.stream.tasks[:3]
    sizes = []
    for task in tasks:
        sizes.append(KeptTexts().texts(learner.family, task, "test", task.read("test")).num_tokens)
    # room for any two of the three
    kept = KeptTexts(most_tokens=sum(sizes) - 1)
    tokenised.clear()
    for position in (0, 1, 0, 2, 0, 1):
        task = tasks[position]
        kept.texts(learner.family, task, "test", task.read("test"))
        assert kept.num_tokens <= kept.most_tokens
    assert [tokenised[task.name, 10] for task in tasks] == [1, 2, 1], "the second one made room for the third"
    nothing = KeptTexts(most_tokens=sizes[0] - 1)
    assert len(nothing.texts(learner.family, tasks[0], "test", tasks[0].read("test"))) == 10
    assert nothing.num_tokens == 0, "what is too large is read, and not kept"


def test_batches_go_from_the_shortest_to_the_longest() -> None:
    assert list(batches_by_length([5, 1, 4, 2, 3], 2, on_cpu=False)) == [[1, 3], [4, 2], [0]]
    assert list(batches_by_length([5, 1, 4], 9, on_cpu=True)) == [[1, 2, 0]]
    assert list(batches_by_length([], 9, on_cpu=True)) == []


def test_a_batch_of_long_texts_is_small_on_a_cpu_alone() -> None:
    """A quarter of the tokens fits four times, of which one token more makes three."""
    quarter = TOKENS_ON_CPU // 4
    assert list(batches_by_length([quarter] * 5, 64, on_cpu=True)) == [[0, 1, 2, 3], [4]]
    assert list(batches_by_length([quarter] * 3 + [quarter + 1], 64, on_cpu=True)) == [[0, 1, 2], [3]]
    assert list(batches_by_length([quarter] * 5, 2, on_cpu=True)) == [[0, 1], [2, 3], [4]]
    assert list(batches_by_length([TOKENS_ON_CPU + 1] * 2, 64, on_cpu=True)) == [[0], [1]]
    assert list(batches_by_length([TOKENS_ON_CPU + 1] * 2, 64, on_cpu=False)) == [[0, 1]]
