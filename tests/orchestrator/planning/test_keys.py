"""What is in the keys of states and scores, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning import keys
from orchestrator.planning.keys import check_unchanged, content_key, score_keys
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from streams import SCORER_VERSIONS, Stream
from tests.conftest import small_config

SequenceOf = Callable[..., SequencePlan]


def scores_of(sequence: SequencePlan, stream: Stream) -> tuple[tuple[str, ...], ...]:
    return score_keys(sequence.keys, sequence.model, stream, sequence.method, sequence.split)


def test_a_key_does_not_depend_on_the_order_of_a_mapping() -> None:
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert len({content_key(1), content_key("1"), content_key(1, 2), content_key([1, 2])}) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"micro_batch": 4}},
        {"training": {"checkpoint_activations": True, "compile": True}},
        {"scaling": {"workers": 2, "strategy": "fsdp"}},
        {"attention": "auto", "base": "float32"},
        {"name": "other"},
        {"methods": [{"preset": "ft", "name": "other"}]},
        {"evaluation": {"batch": 3}},
        {"evaluation": {"during": {"every": 2}}},
        {"stream": {"fuar": {"forgotten": ["reviews"], "acquired": ["riddles"]}}},
    ],
)
def test_what_changes_no_result_changes_no_key(changes: dict[str, Any], sequence_of: SequenceOf) -> None:
    assert sequence_of(**changes).keys == sequence_of().keys
    assert sequence_of(**changes).score_keys == sequence_of().score_keys


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"lr": 0.5}},
        {"training": {"epochs": 2}},
        {"seeds": [8]},
        {"stream": {"prompt": "plain"}},
        {"attention": "eager"},
    ],
)
def test_what_changes_results_changes_the_keys(changes: dict[str, Any], sequence_of: SequenceOf) -> None:
    ours = sequence_of(**changes).keys
    assert not set(ours[1:]) & set(sequence_of().keys)


def test_a_longer_stream_continues_a_shorter_one(sequence_of: SequenceOf) -> None:
    shorter = sequence_of(stream={"first": 2})
    longer = sequence_of(stream={"first": 4})
    assert longer.keys[:3] == shorter.keys


def test_epochs_of_one_task_alone_leave_the_tasks_before_it(sequence_of: SequenceOf) -> None:
    stream = {"first": 3}
    exception = sequence_of(stream=stream, training={"epochs_per_task": {"headlines": 2}})
    (index,) = [t for t, name in enumerate(exception.tasks) if name == "headlines"]
    common = sequence_of(stream=stream).keys
    assert exception.keys[: index + 1] == common[: index + 1]
    assert exception.keys[index + 1] != common[index + 1]


def test_states_that_are_not_trained_are_scored_as_the_initial_model(sequence_of: SequenceOf) -> None:
    zero_shot = sequence_of(methods=["zero-shot"])
    assert len(set(zero_shot.score_keys)) == 1
    assert zero_shot.score_keys[0] == sequence_of().score_keys[0]
    joint = sequence_of(methods=["joint"])
    assert len(set(joint.score_keys)) == 2


def test_the_scorer_and_its_version_are_part_of_a_score(
    sequence_of: SequenceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of()
    stream = sequence.open_stream()
    monkeypatch.setitem(SCORER_VERSIONS, "other", 1)
    first, *rest = stream.tasks
    other = Stream(stream.name, (replace(first, scorer="other"), *rest))
    ours = scores_of(sequence, other)
    assert [row[1:] for row in ours] == [row[1:] for row in sequence.score_keys]
    assert not {row[0] for row in ours} & {row[0] for row in sequence.score_keys}
    monkeypatch.setitem(SCORER_VERSIONS, "other", 2)
    assert not {row[0] for row in ours} & {row[0] for row in scores_of(sequence, other)}
    monkeypatch.setitem(SCORER_VERSIONS, "exact-match", 2)
    assert scores_of(sequence, stream)[0][0] != sequence.score_keys[0][0]


def test_a_format_is_part_of_every_key(sequence_of: SequenceOf, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sequence_of()
    monkeypatch.setattr(keys, "SCORE_FORMAT", keys.SCORE_FORMAT + 1)
    scored = sequence_of()
    assert scored.keys == before.keys
    assert not {key for row in scored.score_keys for key in row} & {key for row in before.score_keys for key in row}
    monkeypatch.setattr(keys, "CHECKPOINT_FORMAT", keys.CHECKPOINT_FORMAT + 1)
    assert not set(sequence_of().keys) & set(before.keys)


def test_data_that_has_changed_since_the_plan_is_refused(sequence_of: SequenceOf) -> None:
    sequence = sequence_of()
    stream = sequence.open_stream()
    check_unchanged(sequence, stream)
    first, *rest = stream.tasks
    changed = Stream(stream.name, (replace(first, instruction="Another? "), *rest))
    with pytest.raises(ValueError, match="the data of stream 'embedded' has changed since the experiment was planned"):
        check_unchanged(sequence, changed)


def test_a_node_with_another_version_of_a_part_is_refused(sequence_of: SequenceOf) -> None:
    sequence = sequence_of(methods=["ft+migu"])
    stream = sequence.open_stream()
    assert sequence.code == {
        "this project": f"checkpoint format {keys.CHECKPOINT_FORMAT}",
        "full": "version 1",
        "migu": "version 1",
    }
    check_unchanged(sequence, stream)
    planned = sequence.model_copy(update={"code": {**sequence.code, "migu": "version 7"}})
    with pytest.raises(
        ValueError, match=r"^migu on node \S+ is not what .* planned with \(version 1 there, version 7 in the plan\)"
    ):
        check_unchanged(planned, stream)
    older = sequence.model_copy(update={"code": {}})
    with pytest.raises(ValueError, match=r"^this project on node .* an earlier version in the plan"):
        check_unchanged(older, stream)


def test_what_may_have_influenced_the_weights_is_in_the_key(sequence_of: SequenceOf) -> None:
    base = sequence_of()
    same = [
        sequence_of(training={"micro_batch": 4}),
        sequence_of(scaling={"workers": [1, 2]}),
        sequence_of("elsewhere"),
    ]
    assert all(s.keys == base.keys for s in same)
    changes: list[dict[str, Any]] = [
        {"training": {"lr": 2e-3}},
        {"training": {"epochs": 2}},
        {"training": {"global_batch": 4}},
        {"training": {"weight_decay": 0.0}},
        {"training": {"schedule": "linear"}},
        {"seeds": [8]},
        {"model": "tiny-llama"},
        {"stream": {"max_train": 16}},
        {"methods": ["lora"]},
    ]
    others = [sequence_of(**c).keys for c in changes]
    assert len({base.keys[1], *(k[1] for k in others)}) == len(changes) + 1
    later = sequence_of(training={"epochs_per_task": {"requests": 2}}).keys
    assert later[:3] == base.keys[:3]
    assert later[3] != base.keys[3]


def test_keys_of_the_first_format_hold_nothing_that_came_later(
    sequence_of: SequenceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests are those that the first version computed: a setting that is not set has renamed nothing since."""
    monkeypatch.setattr(keys, "CHECKPOINT_FORMAT", 1)
    assert sequence_of().keys == (
        "0c1b972a15fe81b3015def5af54429ca", "929e7e7abc550cc00a90604095e20486", "78e2edad7a5825a6df8c41211b069dc4",
        "b67c8ce3837db86ee5520b8b57f05b50", "5284b9343348e1cdebb9e5e898228634", "b534832ce1308cf9904de3d29089c2c2",
    )  # fmt: skip
    other = sequence_of(
        training={"schedule": "cosine", "warmup": 0.1, "epochs_per_task": {"requests": 2}}, methods=["replay"]
    )
    assert (other.keys[1], other.keys[5]) == ("7e93e4d75ef46feb96023cb6cee05f63", "1a478d0ffbd6554c007002371a0083d8")
    unused = {"infinite": {"anneal": 0.9}, "outer": "constant", "budget": None}
    assert sequence_of(training=unused).keys == sequence_of().keys
    # what a schedule takes by itself has the key of the same value written down
    infinite = {"schedule": "infinite"}
    assert sequence_of(training=infinite).keys == sequence_of(training={**infinite, "warmup": 0.05}).keys
    assert sequence_of(training=infinite).keys != sequence_of(training={**infinite, "warmup": 0.0}).keys
    assert sequence_of(training={"warmup": 0.0}).keys == sequence_of().keys


def test_what_these_settings_influence_is_in_the_key(sequence_of: SequenceOf) -> None:
    base = sequence_of().keys
    changes: list[dict[str, Any]] = [
        {"schedule": "infinite"},
        {"schedule": "infinite", "infinite": {"anneal": 0.9}},
        {"budget": {"steps": 3}},
        {"budget": {"tokens": 3}},
        {"budget": {"flops": 3}},
    ]
    others = [sequence_of(training=change).keys for change in changes]
    assert len({base[1], *(k[1] for k in others)}) == len(changes) + 1
    epochs = sequence_of(training={"budget": {"steps": 3}, "epochs": 4}).keys
    assert epochs == others[2], "a budget takes the place of epochs"
    falling = [sequence_of(training={"outer": outer}).keys for outer in ("rsqrt", "cosine")]
    assert all(k[1] == base[1] for k in falling), "the first task is trained alike"
    assert len({base[2], *(k[2] for k in falling)}) == 3


def test_scores_amid_training_go_by_what_is_scored_when(sequence_of: SequenceOf) -> None:
    def keys_of(every: int = 2, **changes: Any) -> tuple[str, ...]:
        during = {"every": every, "examples": 6, "window": changes.pop("window", 10)}
        return sequence_of(evaluation={"during": during}, **changes).points_keys

    ours = keys_of()
    assert len(set(ours)) == 5
    assert sequence_of().points_keys == ()
    assert keys_of(window=3) == ours, "the window is the report's alone"
    assert keys_of(scaling={"workers": 2}) == ours
    assert keys_of(stream={"first": 2}) == ours[:2]
    for changes in (
        {"every": 3},
        {"seeds": [8]},
        {"stream": {"max_test": 9}},
        {"training": {"lr": 0.5}},
        {"scoring": "rank"},
    ):
        assert not set(keys_of(**changes)) & set(ours)


def test_the_expert_of_the_first_task_has_the_points_of_the_sequence_that_trained_it(tmp_path: Path) -> None:
    """Where answers are chosen among the labels of a stream, those of the other tasks make other scores."""
    for model, shared in (("tiny-t5", 1), ("tiny-bert", 0)):
        during = {"during": {"every": 2, "examples": 6}}
        plans = plan(small_config(tmp_path, model=model, methods=["ft", "expert"], evaluation=during))
        of_experts = {key for sequence in plans[1:] for key in sequence.points_keys}
        assert len(of_experts) == 5
        assert plans[0].keys[1] == plans[1].keys[1]
        assert len(of_experts & set(plans[0].points_keys)) == shared


def test_a_longer_scenario_continues_a_shorter_one(sequence_of: SequenceOf) -> None:
    for scenario in (
        {"name": "recurrence", "positions": 9, "seed": 3},
        {"name": "scole", "task": "requests", "positions": 9},
    ):
        short = sequence_of(stream={"scenario": scenario})
        longer = sequence_of(stream={"scenario": {**scenario, "positions": 12}})
        assert longer.keys[:10] == short.keys
        assert len(set(longer.keys)) == 13


def test_a_task_that_comes_again_is_another_state_and_the_same_score(sequence_of: SequenceOf) -> None:
    stream = {"scenario": {"name": "order", "tasks": ["reviews", "headlines", "reviews"]}}
    sequence = sequence_of(stream=stream)
    assert sequence.tasks == ("reviews", "headlines", "reviews@2")
    assert len(set(sequence.keys)) == 4
    for keys_of_state in sequence.score_keys:
        assert keys_of_state[0] == keys_of_state[2] != keys_of_state[1]
    # the first two are those of a stream without the third
    assert sequence_of(stream={"first": 2}).keys == sequence.keys[:3]
    # a method that is told the position answers one text differently for two of them
    told = sequence_of(stream=stream, methods=["progprompt"])
    assert told.score_keys[1][0] != told.score_keys[1][2]


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_a_way_of_choosing_labels_trains_nothing_anew_and_has_scores_of_its_own(
    scoring: str, sequence_of: SequenceOf
) -> None:
    stream = {"scorer": {"headlines": "perplexity"}}
    free = sequence_of(stream=stream)
    chosen = sequence_of(stream=stream, scoring=scoring)
    assert chosen.keys == free.keys
    other = "constrained" if scoring == "rank" else "rank"
    for task_id, task in enumerate(free.tasks):
        same = chosen.score_keys[1][task_id] == free.score_keys[1][task_id]
        # nothing is answered where likelihoods are scored
        assert same == (task == "headlines")
    assert sequence_of(stream=stream, scoring=other).score_keys[1][0] != chosen.score_keys[1][0]
