"""The settings of MIGU, and which of them contradict each other."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from methods.base import Settings

# What the released code does, where that is a setting here
RELEASED = {
    "layers": "all",
    "count_padding": True,
    "per_token_norm": False,
    "importance": "output",
    "cluster": None,
    "freeze_masked": False,
}

# What says how units are masked, and so has no effect where none is
UNMASKED = {
    "mask_first_task": False,
    "count_padding": False,
    "importance": "output",
    "cluster": None,
    "freeze_masked": False,
    "released": False,
    "diagnostics": True,
}


class MiguSettings(Settings):
    """`ratio` is the kept share, 1 - T in the paper's terms; its default T = 0.7 keeps 30 %."""

    ratio: float | dict[str, float] = Field(
        0.3,
        description="share of output units that are updated; or a mapping from attention, ffn or a pattern to shares",
    )
    layers: str = Field("all", description="all, attention, ffn, or a regular expression over layer names")
    masks: bool = Field(True, description="false: train plainly, and only note which output units each task would keep")
    mask_first_task: bool = Field(False, description="mask during the first task too (the released code does not)")
    count_padding: bool = Field(False, description="count padding tokens too (the released code does)")
    per_token_norm: bool = Field(False, description="divide each token's magnitudes by their sum over the layer")
    importance: Literal["output", "weight", "gradient", "random"] = Field(
        "output", description="what ranks output units: output magnitude, mean |weight|, mean |gradient|, or chance"
    )
    cluster: Literal["weights", "comagnitude"] | None = Field(
        None, description="mask whole clusters of output units: alike in their weights, or large on the same examples"
    )
    clusters: int | None = Field(None, ge=2, description="clusters a layer")
    freeze_masked: bool = Field(False, description="put masked output units back after the step, which AdamW moves")
    released: bool = Field(False, description="as the released code: the LM head too, padding counted, a quantile")
    diagnostics: bool = Field(
        True, description="overlap of tasks, moved masked output units: a copy in the CPU's memory, a pass a task"
    )

    @field_validator("ratio")
    @classmethod
    def _is_share(cls, ratio: float | dict[str, float]) -> float | dict[str, float]:
        if ratio == {}:
            raise ValueError("the mapping is empty")
        if isinstance(ratio, dict):
            shares = list(ratio.values())
        else:
            shares = [ratio]
        for share in shares:
            if not 0 < share <= 1:
                raise ValueError(f"a share must be greater than 0 and less than or equal to 1, found {share}")
        return ratio

    @model_validator(mode="before")
    @classmethod
    def _released_counts_padding(cls, values: Any) -> Any:
        # before the defaults are filled in: a `count_padding: false` that the user wrote must still be refused
        if isinstance(values, dict) and values.get("released"):
            return {"count_padding": True, **values}
        return values

    @model_validator(mode="after")
    def _agree(self) -> MiguSettings:
        patterns = [self.layers]
        if isinstance(self.ratio, dict):
            patterns.extend(self.ratio)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no layer group and no regular expression: {error}") from None
        if (self.cluster is None) != (self.clusters is None):
            raise ValueError("cluster and clusters go together")
        reads_outputs = self.importance == "output" or self.cluster == "comagnitude"
        if self.per_token_norm and not reads_outputs:
            raise ValueError(f"per_token_norm: importance {self.importance!r} looks at no outputs")
        if self.count_padding and self.importance != "output":
            raise ValueError(f"count_padding: importance {self.importance!r} counts no tokens")
        if self.released:
            self._check_released()
        if not self.masks:
            self._check_unmasked()
        return self

    def _check_unmasked(self) -> None:
        for name, value in UNMASKED.items():
            if getattr(self, name) != value:
                raise ValueError(f"masks: false masks nothing, so {name}: {getattr(self, name)} would have no effect")

    def _check_released(self) -> None:
        for name, value in RELEASED.items():
            if getattr(self, name) != value:
                raise ValueError(f"released: the released code has {name} = {value}, not {getattr(self, name)!r}")
        if isinstance(self.ratio, dict):
            raise ValueError("released: the released code has one ratio for all layers")
