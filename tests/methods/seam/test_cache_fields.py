"""The cache fields: without a word of the method, all of its settings count from the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods import CacheFields, Context, Method, Settings


class Inner(Settings):
    depth: int = 2


class WeightSettings(Settings):
    weight: float = 0.5
    inner: Inner = Inner()


class Silent(CacheFields, Method):
    """Says nothing of its own."""

    Settings = WeightSettings


class Late(CacheFields, Method):
    """Does nothing in a first task, and never reads one of its settings in training."""

    Settings = WeightSettings

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        fields = dict(super().cache_fields(task_id) or {})
        del fields["inner"]
        return fields


def test_all_settings_count_in_every_task_and_in_the_untrained_model() -> None:
    silent = Silent(WeightSettings(weight=0.25), Context(0))
    everything = {"weight": 0.25, "inner": {"depth": 2}}
    for task_id in (0, 1, 7):
        assert silent.cache_fields(task_id) == everything
    assert silent.model_cache_fields() == everything


def test_what_a_method_takes_out_of_them_stays_in_its_settings() -> None:
    late = Late(WeightSettings(), Context(0))
    assert late.cache_fields(0) is None
    assert late.cache_fields(1) == {"weight": 0.5}
    assert late.settings.inner.depth == 2
