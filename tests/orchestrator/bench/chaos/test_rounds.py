"""Which rounds there are follows from the seed; one real round ends as the undisturbed run."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from orchestrator.bench.chaos.compare import Difference
from orchestrator.bench.chaos.experiment import Setting
from orchestrator.bench.chaos.faults import FAULTS
from orchestrator.bench.chaos.rounds import Outcome, Round, chaos, choose_rounds
from orchestrator.errors import UserError


def test_rounds_follow_from_the_seed() -> None:
    kinds = tuple(FAULTS)
    rounds = choose_rounds(40, 3, kinds)
    assert rounds == choose_rounds(40, 3, kinds)
    assert rounds != choose_rounds(40, 4, kinds)
    assert choose_rounds(50, 3, kinds)[:40] == rounds, "more rounds go on from fewer"
    assert [chosen.number for chosen in rounds] == list(range(40))
    assert all(0 <= chosen.fraction < 1 for chosen in rounds)
    assert len({chosen.fraction for chosen in rounds}) == 40


def test_each_kind_comes_about_equally_often() -> None:
    kinds = tuple(FAULTS)
    counted = Counter(chosen.kind for chosen in choose_rounds(2 * len(kinds) + 3, 0, kinds))
    assert set(counted) == set(kinds)
    assert set(counted.values()) == {2, 3}
    assert {chosen.kind for chosen in choose_rounds(9, 0, ("interrupt", "kill-gcs"))} == {"interrupt", "kill-gcs"}


def test_only_scores_beside_training_have_actors() -> None:
    settings = {chosen.setting for chosen in choose_rounds(50, 0, ("kill-scorer",))}
    assert settings == {Setting(1, "async"), Setting(2, "async")}
    assert len({chosen.setting for chosen in choose_rounds(50, 0, ("kill-worker",))}) == 4


def test_an_outcome_is_whole_only_if_nothing_is_wrong_with_it() -> None:
    chosen = Round(0, "interrupt", Setting(1, "inline"), 0.5, 9)
    assert Outcome(chosen, recovered=True).is_whole
    assert not Outcome(chosen).is_whole
    assert not Outcome(chosen, recovered=True, trained_again=1).is_whole
    damaged = Outcome(chosen, recovered=True, differences=[Difference("lost", "a fact")])
    assert not damaged.is_whole
    values = damaged.to_json()
    assert (values["kind"], values["setting"], values["lost"], values["doubled"]) == ("interrupt", "1-inline", 1, 0)
    assert (values["differences"], values["whole"]) == (["lost: a fact"], False)


def test_a_folder_that_cannot_be_one_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out: cannot write to"):
        chaos(Console(quiet=True), 1, 0, ("interrupt",), tmp_path / "file" / "below")


@pytest.mark.slow
def test_a_run_whose_driver_is_killed_ends_as_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed's round has one worker, and its moment is in the middle of training."""
    # Ray's folders are made below it, of which nothing is to stay
    temporary = tempfile.mkdtemp(prefix="t")
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    said = io.StringIO()
    result = chaos(Console(file=said, width=100), 1, 58, ("kill-driver",), tmp_path)
    (played,) = result["played"]
    assert played["whole"], played
    assert played["done"].startswith("SIGKILL to process ")
    assert played["finished"] >= 1, "it was too early"
    assert (played["codes"], played["trained_again"]) == ([-9, 0], 0)
    assert (result["bench"], result["rounds"], result["kinds"][0]["hits"]) == ("chaos", 1, 1)
    assert played["recover_s"] > 0
    assert "round 1 of 1: kill-driver (1-inline)" in said.getvalue()
    assert (tmp_path / "000-kill-driver" / "out" / "mlflow.db").exists()
    assert json.loads((tmp_path / "000-kill-driver" / "outcome.json").read_text()) == played
    for process in psutil.process_iter(["environ"]):
        assert not (process.info["environ"] or {}).get("RAY_TMPDIR", "").startswith(temporary)
    assert not list(Path(temporary).glob("chaos-*"))
    shutil.rmtree(temporary)
