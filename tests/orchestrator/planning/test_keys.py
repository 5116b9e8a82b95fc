"""What a checkpoint's key is made of, and what it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.planning.sequence_plan import SequencePlan


def test_what_may_have_influenced_the_weights_is_in_the_key(sequence_of: Callable[..., SequencePlan]) -> None:
    base = sequence_of()
    same = [sequence_of(training={"micro_batch": 4}), sequence_of(scaling={"workers": 2}), sequence_of("elsewhere")]
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
    keys = [sequence_of(**c).keys for c in changes]
    assert len({base.keys[1], *(k[1] for k in keys)}) == len(changes) + 1
    later = sequence_of(training={"epochs_per_task": {"requests": 2}}).keys
    assert later[:3] == base.keys[:3]
    assert later[3] != base.keys[3]


def test_keys_from_before_these_settings_stay(sequence_of: Callable[..., SequencePlan]) -> None:
    """The digests are those that the version before these settings computed: its checkpoints are found again."""
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


def test_what_these_settings_influence_is_in_the_key(sequence_of: Callable[..., SequencePlan]) -> None:
    base = sequence_of().keys
    changes: list[dict[str, Any]] = [
        {"schedule": "infinite"},
        {"schedule": "infinite", "infinite": {"anneal": 0.9}},
        {"budget": {"steps": 3}},
        {"budget": {"tokens": 3}},
        {"budget": {"flops": 3}},
    ]
    keys = [sequence_of(training=change).keys for change in changes]
    assert len({base[1], *(k[1] for k in keys)}) == len(changes) + 1
    epochs = sequence_of(training={"budget": {"steps": 3}, "epochs": 4}).keys
    assert epochs == keys[2], "a budget takes the place of epochs"
    falling = [sequence_of(training={"outer": outer}).keys for outer in ("rsqrt", "cosine")]
    assert all(k[1] == base[1] for k in falling), "the first task is trained alike"
    assert len({base[2], *(k[2] for k in falling)}) == 3
