"""Which benchmarks there are, and what names their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.model import ModelConfig
from orchestrator.config.running import ProbesConfig
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.planning.probes import ProbeColumns, check_probes, probe_columns
from streams.scenarios.memories import Memories
from tests.conftest import small_config
from tests.orchestrator.evaluation.abilities.probe_tasks import write_probe

pytest.importorskip("lm_eval")


MODEL = ModelConfig(name="tiny-t5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["film"]}, r"evaluation.probes.tasks: 'film' is no task of lm-evaluation-harness, nor in '.*own'"),
        ({"tasks": ["memories"]}, "'memories' is what a stream with the scenario of that name takes by itself"),
        ({"include": "/nowhere"}, "evaluation.probes.include: folder '/nowhere' does not exist"),
        ({"kind": "encoder"}, "evaluation.probes: they ask a model how likely texts are, and 'm' is an encoder"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_probe(tmp_path / "own", "films")
    # the harness's own tasks are thousands of files
    monkeypatch.setattr("orchestrator.planning.probes.DEFAULTS", False)
    kind = changes.pop("kind", "decoder")
    probes = ProbesConfig.model_validate({"tasks": ["films"], "include": str(folder), **changes})
    with pytest.raises(ValueError, match=message) as caught:
        check_probes(probes, kind, "m")
    assert "\n" not in str(caught.value)
    check_probes(ProbesConfig(tasks=("films",), include=str(folder)), "decoder", "m")


def test_the_harness_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'continual-orchestrator\[probes\]'"):
        check_probes(ProbesConfig(tasks=("films",)), "decoder", "m")


def test_a_result_is_named_by_all_that_decides_it(tmp_path: Path) -> None:
    folder = write_probe(tmp_path, "films")

    def keys(*states: str, **changes: Any) -> tuple[tuple[str, ...], ...]:
        settings = {"tasks": ["films"], "include": str(folder), **changes}
        return probe_columns(ProbesConfig.model_validate(settings), None, MODEL, states).keys

    ((one,), (two,)) = keys("a", "b")
    others = [two]
    for changes in ({"few_shot": 1}, {"few_shot": 0}, {"limit": 3}, {"tasks": ["other"]}, {"include": None}):
        ((key,),) = keys("a", **changes)
        others.append(key)
    (folder / "rows.jsonl").write_text("{}")
    ((key,),) = keys("a")
    others.append(key)
    assert len({one, *others}) == 8
    assert keys("a", tasks=["x", "films"])[0][1] == key, "whatever else is asked"
    assert probe_columns(None, None, MODEL, ["a"]) == ProbeColumns()
    both = probe_columns(ProbesConfig.model_validate({"tasks": ["x"]}), Memories(), MODEL, ["a", "b"])
    assert both.names == ("x", "memories") and len({key for row in both.keys for key in row}) == 4
    other = probe_columns(None, Memories(facts=3), MODEL, ["a", "b"])
    assert other.names == ("memories",) and other.keys[0][0] not in both.keys[0]


def test_a_plan_has_a_result_for_each_state_and_benchmark_and_keeps_its_name(tmp_path: Path) -> None:
    folder = write_probe(tmp_path / "own", "films")
    probes = {"tasks": ["films"], "include": str(folder)}
    changes: dict[str, Any] = {"model": "tiny-llama", "methods": ["ft", "expert"], "stream": {"first": 2}}
    asked = plan(small_config(tmp_path, **changes, evaluation={"probes": probes}))
    plain = plan(small_config(tmp_path, **changes))
    assert [sequence.id for sequence in asked] == [sequence.id for sequence in plain]
    # an expert's one task is no stream to lose abilities over
    assert [len(sequence.probe_keys) for sequence in asked] == [3, 0, 0]
    assert [sequence.probe_keys for sequence in plain] == [(), (), ()]
    with pytest.raises(UserError, match="they ask a model how likely texts are"):
        plan(small_config(tmp_path, model="tiny-bert", evaluation={"probes": probes}))


def test_a_model_in_parts_is_refused_and_an_untrained_state_is_asked_once(tmp_path: Path) -> None:
    probes = {"tasks": ["films"], "include": str(write_probe(tmp_path / "own", "films"))}
    changes: dict[str, Any] = {"model": "tiny-llama", "stream": {"first": 3}, "evaluation": {"probes": probes}}
    with pytest.raises(
        ValueError, match=r"cannot be combined with scaling\.strategy: 'fsdp': the harness asks a whole"
    ):
        small_config(tmp_path, **changes, scaling={"workers": 2, "strategy": "fsdp"})
    (joint,) = plan(small_config(tmp_path, **changes, methods=["joint"]))
    before, one, two, after = joint.probe_keys
    # it trains when all tasks are there
    assert before == one == two != after
