"""A result that changes compels a version to be raised."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from methods import METHODS, PRESETS
from orchestrator.planning.keys import CHECKPOINT_FORMAT
from tests.methods import fingerprints
from tests.methods.fingerprints import SUBJECTS, WITHOUT_PRESET, problem, read, record_of, versions_of

# what is made of parts that another subject has as well, or takes long: for the whole suite
SLOW = (
    "lora+migu", "lora+random", "replay+migu", "lorareplay", "lorareplay+migu", "ewc+migu", "inclora+migu", "olora+migu",
    "refresh", "average", "ema", "arithmetic", "dare", "expert", "lfpt5", "l2p", "lwf", "conpet", "ft on tiny-bert",
    "ft on tiny-llama",
)  # fmt: skip
FOUND = {"versions": {"full": 1, "migu": 1}, "fingerprint": [10.0, 0.5, -3.0]}
RECORDED: dict[str, Any] = {"checkpoint_format": 3, "subjects": {"ft+migu": FOUND}}


def cases() -> list[object]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SUBJECTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fingerprints")


@pytest.mark.parametrize("subject", cases())
def test_a_changed_result_has_another_version(subject: str, folder: Path) -> None:
    line = problem(subject, record_of(subject, folder), read(), CHECKPOINT_FORMAT)
    assert line is None, line


def test_every_part_has_a_fingerprint_and_no_other_has() -> None:
    parts = set()
    for name in (*PRESETS, *WITHOUT_PRESET):
        parts |= set(versions_of(name))
    assert parts == set(METHODS)
    assert list(read()["subjects"]) == list(SUBJECTS)


def found_with(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FOUND), **changes}


def test_the_last_bits_of_a_result_are_no_change() -> None:
    assert problem("ft+migu", found_with(), RECORDED, 3) is None
    assert problem("ft+migu", found_with(fingerprint=[10.0, 0.5 + 1e-9, -3.0]), RECORDED, 3) is None


@pytest.mark.parametrize("number", range(3))
def test_another_result_under_the_same_version_is_refused(number: int) -> None:
    changed = [10.0, 0.5, -3.0]
    changed[number] += 1e-6
    line = problem("ft+migu", found_with(fingerprint=changed), RECORDED, 3)
    assert line == (
        "the result of ft+migu changed: raise its card's version and run `python -m tests.methods.fingerprints --write`"
    )


def test_plain_training_s_result_is_known_by_the_format() -> None:
    recorded = {"checkpoint_format": 3, "subjects": {"ft": {"versions": {"full": 1}, "fingerprint": [1.0, 1.0, 1.0]}}}
    line = problem("ft", {"versions": {"full": 1}, "fingerprint": [2.0, 1.0, 1.0]}, recorded, 3)
    assert line is not None and "raise CHECKPOINT_FORMAT in orchestrator/planning/keys.py" in line


@pytest.mark.parametrize("fingerprint", [[10.0, 0.5, -3.0], [11.0, 0.5, -3.0]])
def test_a_raised_version_is_recorded(fingerprint: list[float]) -> None:
    raised = found_with(versions={"full": 1, "migu": 2}, fingerprint=fingerprint)
    line = problem("ft+migu", raised, RECORDED, 3)
    assert line is not None and line.startswith("the version of migu is 2 and was 1: run ")
    line = problem("ft+migu", found_with(fingerprint=fingerprint), RECORDED, 4)
    assert line is not None and line.startswith("CHECKPOINT_FORMAT is 4 and was 3: run ")
    line = problem("new", found_with(), RECORDED, 3)
    assert line is not None and line.startswith("new has no fingerprint: run ")


def test_a_changed_result_is_not_written_under_its_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"ft": [1.0, 1.0, 1.0], "ft+migu": [10.0, 0.5, -3.0]}
    versions = {"ft": {"full": 1}, "ft+migu": {"full": 1, "migu": 1}}
    monkeypatch.setattr(fingerprints, "FILE", tmp_path / "fingerprints.json")
    monkeypatch.setattr(fingerprints, "SUBJECTS", tuple(numbers))
    monkeypatch.setattr(fingerprints, "fingerprint", lambda subject, folder: numbers[subject])
    monkeypatch.setattr(fingerprints, "versions_of", lambda subject: dict(versions[subject]))
    assert fingerprints.write(tmp_path) == []
    first = read()
    # rounding alone leaves the file as it is
    numbers["ft"] = [1.0 + 1e-12, 1.0, 1.0]
    assert fingerprints.write(tmp_path) == []
    assert read() == first
    numbers["ft+migu"] = [11.0, 0.5, -3.0]
    (refusal,) = fingerprints.write(tmp_path)
    assert refusal.startswith("the result of ft+migu changed: raise its card's version")
    assert read() == first
    versions["ft+migu"]["migu"] = 2
    assert fingerprints.write(tmp_path) == []
    assert read()["subjects"]["ft+migu"] == {"versions": {"full": 1, "migu": 2}, "fingerprint": [11.0, 0.5, -3.0]}
