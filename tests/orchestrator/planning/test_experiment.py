"""An experiment in its folder: written, opened, moved, and what is said where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment, check_writable, open_experiment, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.store.integrity import seal_text, unseal_text
from tests.conftest import small_config


def saved(out: Path) -> Experiment:
    config = small_config(out)
    experiment = Experiment(config, tuple(plan(config)))
    experiment.save()
    return experiment


def test_what_is_saved_is_opened_by_its_name(tmp_path: Path) -> None:
    experiment = saved(tmp_path / "out")
    assert open_experiment("small", str(tmp_path / "out")) == experiment


def test_a_folder_that_was_moved_is_opened_where_it_is(tmp_path: Path) -> None:
    saved(tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "moved")
    opened = open_experiment(str(tmp_path / "moved" / "experiments" / "small"), "elsewhere")
    assert opened.config.out == str(tmp_path / "moved")
    assert {sequence.out for sequence in opened.sequences} == {str(tmp_path / "moved")}


def test_an_unknown_experiment_is_said_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no experiment 'smal' in .*: it has none"):
        open_experiment("smal", str(tmp_path))
    saved(tmp_path)
    with pytest.raises(UserError, match=r"no experiment 'smal' in .*: it has small"):
        open_experiment("smal", str(tmp_path))


def test_a_file_that_is_no_plan_is_said(tmp_path: Path) -> None:
    (saved(tmp_path).folder / "sequences.json").write_text('[{"id": 3}]')
    with pytest.raises(UserError, match="not an experiment that this version can read: ") as caught:
        open_experiment("small", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_of_configuration_and_plan_is_said(tmp_path: Path) -> None:
    """And never read as another value, whatever a cut or a stray byte leaves of them."""
    folder = saved(tmp_path).folder
    for name in ("config.yaml", "sequences.json"):
        sound = (folder / name).read_bytes()
        damages = [b"", b"null\n", b"[]", b"{}", b"[null]", b"\0" * 100, b"\xff\xfe", sound + b"\0" * 64]
        for position in range(0, len(sound) - 1, 7):
            damages.append(sound[:position])
            changed = bytearray(sound)
            changed[position] ^= 1 << position % 8
            damages.append(bytes(changed))
        for damage in damages:
            (folder / name).write_bytes(damage)
            with pytest.raises(UserError, match=r"damaged|not an experiment|no sequence") as caught:
                open_experiment("small", str(tmp_path))
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(folder))
        (folder / name).write_bytes(sound)
    assert open_experiment("small", str(tmp_path)).sequences


def test_an_experiment_of_before_its_files_were_sealed_is_read(tmp_path: Path) -> None:
    experiment = saved(tmp_path)
    plans = json.loads((experiment.folder / "sequences.json").read_text())["sequences"]
    (experiment.folder / "sequences.json").write_text(json.dumps(plans))
    (experiment.folder / "config.yaml").write_text(yaml.safe_dump(experiment.config.model_dump(mode="json")))
    assert open_experiment("small", str(tmp_path)) == experiment


def test_a_plan_whose_plugin_cannot_be_found_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path).folder
    text = unseal_text((folder / "config.yaml").read_bytes())
    (folder / "config.yaml").write_bytes(seal_text(text.replace("name: full", "name: not_here.Mine")))
    with pytest.raises(UserError, match=r"can read: methods\.0.*there is no module 'not_here'"):
        open_experiment("small", str(tmp_path))


def test_mlflow_is_in_the_output_folder_unless_it_is_named(tmp_path: Path) -> None:
    assert tracking_uri(small_config(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    elsewhere = small_config(tmp_path, tracking={"uri": "http://127.0.0.1:5000"})
    assert tracking_uri(elsewhere) == "http://127.0.0.1:5000"


def test_an_output_folder_must_be_writable(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "new" / "below"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out: cannot write to"):
        check_writable(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize("out", ["/proc/x", "/dev/null/x", "LONG", "DEEP"])
def test_a_place_that_takes_no_file_is_refused_and_nothing_is_left(out: str, tmp_path: Path) -> None:
    out = out.replace("LONG", str(tmp_path / "new" / ("x" * 256)))
    out = out.replace("DEEP", str(tmp_path / "/".join(["new"] * 2_000)))
    with pytest.raises(UserError, match="out: cannot write to"):
        check_writable(out)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "new" / "below"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["x" * 300, "a\0b", ".", "..", "/"])
def test_a_name_that_no_experiment_has(run: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiment") as refused:
        open_experiment(run, str(tmp_path))
    assert len(str(refused.value)) < 300
