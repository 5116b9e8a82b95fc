"""Folders as wholes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import StorageFailed
from orchestrator.storage.folders import contents_of, made_whole, move_folder, on_disk, remove_folder
from orchestrator.storage.places import folder_at


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_on_a_disk_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "checkpoints" / "k"
    leftover = final.with_name(".k.1234")
    leftover.mkdir(parents=True)
    with made_whole(final, final.exists) as folder:
        (folder / "file").write_text("x")
        assert not final.exists() and not leftover.exists()
    assert names(final) == ["file"] and names(final.parent) == ["k"]
    # another one made it meanwhile
    with made_whole(final, final.exists) as folder:
        (folder / "other").write_text("x")
    assert names(final) == ["file"] and names(final.parent) == ["k"]
    with pytest.raises(ZeroDivisionError), made_whole(final.with_name("l"), final.exists) as folder:
        raise ZeroDivisionError
    assert names(final.parent) == ["k"]


def test_in_an_object_store_its_files_are_written_where_they_stay(bucket: str) -> None:
    final = folder_at(bucket) / "checkpoints" / "k"
    with made_whole(final, final.exists) as folder:
        assert folder == final


def test_folders_are_moved_and_removed(bucket: str, tmp_path: Path) -> None:
    for root in (folder_at(f"{bucket}/root"), tmp_path):
        folder = root / "k"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text("x")
        move_folder(folder, "k.corrupt-1")
        assert not folder.exists() and names(root / "k.corrupt-1") == ["file"]
        remove_folder(root / "k.corrupt-1")
        assert not (root / "k.corrupt-1").exists()


def test_what_reads_files_gets_one(bucket: str, tmp_path: Path) -> None:
    file = folder_at(bucket) / "plots" / "a.png"
    file.write_bytes(b"png")
    with on_disk(file) as copy:
        assert (copy.name, copy.read_bytes()) == ("a.png", b"png")
    assert not copy.exists()
    here = tmp_path / "a.png"
    with on_disk(here) as same:
        assert same is here


def test_many_files_are_read_at_once(bucket: str, tmp_path: Path) -> None:
    for root in (folder_at(f"{bucket}/root"), tmp_path):
        files = [root / name for name in ("b", "missing", "a")]
        files[0].write_bytes(b"1")
        files[2].write_bytes(b"2")
        assert contents_of(files) == [b"1", None, b"2"]
    assert contents_of([]) == []
    with pytest.raises(StorageFailed, match="there is no such bucket"):
        contents_of([folder_at(f"{bucket}-other") / "a"])
