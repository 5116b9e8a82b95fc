"""Facts in the first task: how many there are, how often they are seen, and that nothing else changes."""

from __future__ import annotations

from collections import Counter

import pytest

from streams import EmbeddedSource, Limits
from streams.scenarios.memories import NAME, Memories, as_example, memory_task
from streams.scenarios.mixture import Mixture

STREAM = EmbeddedSource(words="embedded").stream("embedded", Limits(max_train=30))


def test_facts_are_made_up_by_the_seed_and_their_foils_are_answers_of_the_same_kind() -> None:
    facts = Memories(facts=4, exposures=(1, 3)).all_facts()
    assert facts == Memories(facts=4, exposures=(1, 3)).all_facts()
    assert facts != Memories(facts=4, exposures=(1, 3), seed=1).all_facts()
    assert [fact.exposures for fact in facts] == [1] * 4 + [3] * 4
    words = [fact.answer for fact in facts] + [fact.question for fact in facts]
    assert len(set(words)) == 16
    for kind in (facts[:4], facts[4:]):
        assert sorted(fact.foil for fact in kind) == sorted(fact.answer for fact in kind)
        assert all(fact.foil != fact.answer for fact in kind)


def test_the_first_task_has_each_fact_as_often_as_it_is_to_be_seen() -> None:
    memories = Memories(facts=2, exposures=(1, 3))
    stream = memories.apply(STREAM)
    assert stream.task_names == STREAM.task_names
    own = STREAM.tasks[0].read("train")
    train = stream.tasks[0].read("train")
    assert train[: len(own)] == own
    counts = Counter(example.text for example in train[len(own) :])
    assert counts == {fact.question: fact.exposures for fact in memories.all_facts()}
    assert {str(example.prompt) for example in train[len(own) :]} == {f"{text}\nAnswer:" for text in counts}
    for split in ("dev", "test"):
        assert stream.tasks[0].read(split) == STREAM.tasks[0].read(split)  # type: ignore[arg-type]
    assert stream.tasks[0].train_hash != STREAM.tasks[0].train_hash
    assert [task.train_hash for task in stream.tasks[1:]] == [task.train_hash for task in STREAM.tasks[1:]]
    assert [task.name for task in stream.tasks[0].guest_tasks] == [NAME]


def test_guests_that_were_there_before_stay() -> None:
    mixed = Mixture(share=0.25, tasks=("headlines",)).apply(STREAM)
    both = Memories(facts=2, exposures=(1,)).apply(mixed).tasks[0]
    before = mixed.tasks[0].read("train")
    assert both.read("train")[: len(before)] == before
    assert len(both.read("train")) == len(before) + 2
    assert [task.name for task in both.guest_tasks] == ["headlines", NAME]


def test_a_fact_is_asked_as_it_was_learnt() -> None:
    (fact, *_) = Memories().all_facts()
    task = memory_task(Memories().all_facts())
    assert len(task.read("test")) == 60 and not task.labels
    assert as_example(fact, fact.foil).label == fact.foil != as_example(fact).label == fact.answer


def test_a_number_of_exposures_is_given_once() -> None:
    with pytest.raises(ValueError, match="scenario 'memories': exposures: a number is given twice"):
        Memories(exposures=(3, 3)).apply(STREAM)
