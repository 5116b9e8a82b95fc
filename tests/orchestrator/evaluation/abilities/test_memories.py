"""What is left of facts: recall and recognition, against plain loops over models that know some of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.evaluation.abilities.memories import measure_memories
from orchestrator.planning.planner import plan
from orchestrator.planning.probes import memories_of
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import read_view
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from streams.scenarios.memories import Memories, as_example, memory_task
from tests.conftest import small_config
from tests.orchestrator.models.greedy import decode

SCENARIO = {"name": "memories", "facts": 3, "exposures": [1, 40]}


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_recall_and_recognition_are_those_of_plain_loops(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(model=model, stream={"first": 1, "scenario": SCENARIO})
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load_initial()
    family = learner.family
    memories = memories_of(sequence.stream)
    assert isinstance(memories, Memories)
    facts = memories.all_facts()
    task = memory_task(facts)
    _learn(learner, [as_example(fact) for fact in facts[:4]])
    found = measure_memories(learner.scored_model(), memories, batch_size=4)
    recalled: dict[int, list[bool]] = {1: [], 40: []}
    recognised: dict[int, list[bool]] = {1: [], 40: []}
    family.module.eval()
    for fact in facts:
        losses = []
        for answer in (fact.answer, fact.foil):
            (feature,) = family.features(task, [as_example(fact, answer)])
            with torch.no_grad():
                losses.append(float(family.forward(family.module, family.collate([feature]))[0]))
        recognised[fact.exposures].append(losses[0] < losses[1])
        answer = decode(family, feature["source"], family.max_new_tokens(task))  # type: ignore[attr-defined]
        recalled[fact.exposures].append(answer.strip() == fact.answer)
    numbers = found["numbers"]
    for exposures in (1, 40):
        assert numbers[f"recall ({exposures})"] == pytest.approx(100 * sum(recalled[exposures]) / 3)
        assert numbers[f"recognition ({exposures})"] == pytest.approx(100 * sum(recognised[exposures]) / 3)
    assert numbers["recall"] == found["score"] == pytest.approx(100 * (sum(recalled[1]) + sum(recalled[40])) / 6)
    assert 0 < found["score"] < 100, "a model that knows all, or nothing, tells no two numbers apart"
    assert (found["metric"], found["better"], found["n"]) == ("recall", "higher", 6)


def _learn(learner: Learner, examples: list[Any]) -> None:
    """Fit the model to a few facts."""
    family = learner.family
    features = family.features(memory_task([]), examples)
    optimizer = torch.optim.Adam(family.module.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        family.forward(family.module, family.collate(features))[0].backward()
        optimizer.step()


def test_each_state_is_measured_and_the_facts_are_trained_in_the_first_task_alone(tmp_path: Path) -> None:
    config = small_config(tmp_path, stream={"first": 2, "scenario": SCENARIO}, methods=["ft", "expert"])
    sequence, *experts = plan(config)
    assert sequence.probe_names == ("memories",) and len(sequence.probe_keys) == 3
    assert all(not expert.probe_names for expert in experts)
    view = run_sequence(sequence)
    assert sorted(view.probes) == [(0, "memories"), (1, "memories"), (2, "memories")]
    assert view.probes[0, "memories"].score == 0.0
    assert read_view(sequence.out, sequence.id).is_scored()
    # three facts once and three forty times beside 24 examples, in batches of 8
    assert (len(view.by_task[0].steps), len(view.by_task[1].steps)) == (-(-(24 + 123) // 8), 3)


def test_who_cannot_write_an_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has guests of task 'memories', whose label 'any answer' no task has brought"):
        plan(small_config(tmp_path, model="tiny-bert", stream={"first": 2, "scenario": SCENARIO}))
