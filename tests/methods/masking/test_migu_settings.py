"""Settings of MIGU that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from methods import MethodSpec


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"cluster": "weights"}, "migu: cluster and clusters go together"),
        ({"clusters": 4}, "migu: cluster and clusters go together"),
        (
            {"importance": "weight", "per_token_norm": True},
            "migu: per_token_norm: importance 'weight' looks at no outputs",
        ),
        ({"importance": "random", "count_padding": True}, "migu: count_padding: importance 'random' counts no tokens"),
        ({"released": True, "layers": "ffn"}, "migu: released: the released code has layers = all, not 'ffn'"),
        ({"released": True, "count_padding": False}, "migu: released: the released code has count_padding = True"),
        ({"released": True, "freeze_masked": True}, "migu: released: the released code has freeze_masked = False"),
        ({"released": True, "ratio": {"ffn": 0.3}}, "migu: released: the released code has one ratio"),
        ({"layers": "["}, "migu: '[' is no layer group and no regular expression"),
        ({"ratio": {"attention": 0}}, "migu.ratio: a share must be greater than 0"),
        ({"ratio": {}}, "migu.ratio: the mapping is empty"),
        (
            {"masks": False, "freeze_masked": True},
            "migu: masks: false masks nothing, so freeze_masked: True would have no",
        ),
        (
            {"masks": False, "diagnostics": False},
            "migu: masks: false masks nothing, so diagnostics: False would have no",
        ),
        (
            {"masks": False, "importance": "weight"},
            "migu: masks: false masks nothing, so importance: weight would have no",
        ),
        ({"clusters": 1, "cluster": "weights"}, "migu.clusters: Input should be greater than or equal to 2"),
        ({"importance": "size"}, "migu.importance: Input should be 'output', 'weight', 'gradient' or 'random'"),
    ],
)
def test_contradictions_are_refused_in_one_line(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        MethodSpec.model_validate({"tuning": "full", "plugins": [{"name": "migu", **settings}]})
    line = next(line for line in str(error.value).splitlines() if "migu" in line)
    assert complaint in line


def test_settings_survive_a_round_trip() -> None:
    spec = {"tuning": "full", "plugins": [{"name": "migu", "released": True}]}
    once = MethodSpec.model_validate(spec)
    assert once.plugins[0].settings["count_padding"] is True
    assert MethodSpec.model_validate(once.model_dump()) == once
