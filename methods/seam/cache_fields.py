"""The cache fields: which settings can have influenced the weights by now.

Checkpoints are shared between all methods whose fields agree up to a task, so a field that is left out wrongly gives a
method another one's weights, and a field too many trains the same weights twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CacheFields:
    """Says when settings start to matter. Without this part, all settings of a method count from the start."""

    # what `Method` sets; named here so that this part can be derived from beside it
    settings: Any

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        """The settings that can influence the weights while training task `task_id`; None where the method does nothing."""
        return dict(self.settings.model_dump())

    def model_cache_fields(self) -> Mapping[str, Any]:
        """The settings of a tuning method that decide the untrained model. The others count from the first task."""
        return dict(self.settings.model_dump())
