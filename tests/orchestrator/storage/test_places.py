"""The output folder by its name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.storage import places
from orchestrator.storage.places import folder_at, is_local, local_folder, resolved, seconds_between_looks


def test_a_path_stays_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(folder_at(str(tmp_path))) is type(tmp_path)
    assert folder_at(tmp_path) is tmp_path and is_local(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert resolved("runs") == str(tmp_path / "runs")
    assert local_folder(str(tmp_path)) == tmp_path


def test_a_uri_has_the_methods_of_a_path() -> None:
    out = resolved("s3://bucket/some/prefix/")
    assert out == "s3://bucket/some/prefix"
    file = folder_at(out) / "scores" / "k.json"
    assert not is_local(file)
    assert (str(file), file.name, file.stem, str(file.parent)) == (
        "s3://bucket/some/prefix/scores/k.json",
        "k.json",
        "k",
        "s3://bucket/some/prefix/scores",
    )
    # a name that comes back from text is the same place
    assert folder_at(str(file)) == file and folder_at(file) is file
    # and so is the folder of an experiment in a whole bucket
    bucket = resolved("s3://bucket")
    assert str((folder_at(bucket) / "experiments" / "name").parent.parent) == bucket


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("gs://bucket/x", "neither a folder nor of the form s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://key:secret@bucket/x", "credentials and options have no place in a URI"),
        ("s3://bucket/x?endpoint_url=y", "credentials and options have no place in a URI"),
    ],
)
def test_what_is_no_place_is_refused_in_one_line(uri: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as refused:
        resolved(uri)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


def test_a_client_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None if name == "s3fs" else importlib.util.find_spec(name))
    with pytest.raises(UserError, match=r"pip install 'continual-orchestrator\[s3\]'"):
        resolved("s3://bucket/x")


def test_what_must_be_on_a_disk_has_a_folder_for_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = local_folder("s3://bucket/one")
    assert one.is_dir() and one.is_relative_to(tmp_path)
    assert one == local_folder("s3://bucket/one") != local_folder("s3://bucket/two")


def test_requests_are_made_less_often_than_looks_at_a_disk() -> None:
    assert seconds_between_looks("/runs", 0.3) == 0.3
    assert seconds_between_looks("s3://bucket/runs", 0.3) == places.OBJECT_LOOK_SECONDS
    assert seconds_between_looks("s3://bucket/runs", 1.0, 10.0) == 10.0


@pytest.mark.parametrize("out", ["x" * 300, "a\0b", "~nobody-of-that-name/x"])
def test_a_folder_that_no_output_can_have(out: str) -> None:
    with pytest.raises(UserError, match=r"out: .* is no folder"):
        resolved(out)
