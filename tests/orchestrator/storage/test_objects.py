"""Objects as paths, on a real server."""

from __future__ import annotations

import pickle
import threading

import pytest

from orchestrator.errors import StorageFailed
from orchestrator.storage.objects import ObjectPath, code_of, object_path


def test_an_object_is_read_as_it_was_written(bucket: str) -> None:
    file = object_path(f"{bucket}/runs") / "a file.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("schön\n")
    assert (file.read_text(), file.read_bytes()) == ("schön\n", "schön\n".encode())
    assert file.read_from(5) == b"n\n"
    assert (file.stat().st_size, file.is_dir(), file.parent.is_dir()) == (7, False, True)
    assert list(file.parent.glob("a *")) == list(file.parent.iterdir()) == [file]
    with file.open("w", newline="") as stream:
        stream.write("a,b\r\n")
    assert file.read_bytes() == b"a,b\r\n" == file.read_large() == b"".join(file.pieces())
    with file.open("wb", buffering=0) as raw:
        raw.write(memoryview(b"bytes"))
    assert file.read_bytes() == b"bytes"
    moved = file.rename(file.with_name("moved.txt"))
    assert moved.read_bytes() == b"bytes" and not file.exists()
    file = moved
    # plans and settings go to other processes
    assert pickle.loads(pickle.dumps(file)).read_bytes() == b"bytes"
    file.unlink()
    assert not file.exists()


def test_what_is_not_there_is_no_failure_of_the_store(bucket: str) -> None:
    missing = object_path(bucket) / "missing"
    with pytest.raises(FileNotFoundError):
        missing.read_bytes()
    assert missing.tagged() is None
    assert missing.listed() == {}
    assert not missing.exists()
    missing.unlink()


def test_a_bucket_that_is_not_there_is_a_failure_and_is_not_made(bucket: str) -> None:
    file = object_path(f"{bucket}-other") / "file"
    file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in (file.read_bytes, lambda: file.write_bytes(b"x"), file.listed, lambda: file.put_if(b"x", None)):
        with pytest.raises(StorageFailed, match="there is no such bucket"):
            attempt()


def test_a_store_that_does_not_answer_is_no_file_that_is_missing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    file = object_path(f"{bucket}/unreachable", attempts=1)
    # a client keeps the address that it was made with
    file.fs.clear_instance_cache()
    file = object_path(f"{bucket}/unreachable", attempts=1)
    try:
        looks = (file.exists, file.is_dir, file.stat, file.listed, lambda: file.glob("*"), file.iterdir)
        for attempt in (*looks, file.read_bytes, lambda: list(file.pieces())):
            with pytest.raises(
                StorageFailed, match=r'Could not connect to the endpoint URL: "http://127.0.0.1:9/[^?]*"$'
            ):
                attempt()
    finally:
        file.fs.clear_instance_cache()


def test_a_folder_is_listed_page_by_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    folder = object_path(f"{bucket}/folder")
    for number in range(5):
        (folder / f"{number}").write_bytes(b"x" * number)
    # its name begins with the folder's
    object_path(f"{bucket}/folder-2").write_bytes(b"")
    assert folder.listed() == {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}


def test_a_folder_is_moved_and_removed(bucket: str) -> None:
    folder = object_path(f"{bucket}/from")
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    target = object_path(f"{bucket}/to")
    folder.move_all(target)
    assert folder.listed() == {}
    assert (target / "b").read_bytes() == b"b" and set(target.listed()) == {"a", "b"}
    target.remove_all()
    assert target.listed() == {}


def test_conditions_let_one_of_many_through(bucket: str) -> None:
    file = object_path(f"{bucket}/once")
    tags: list[str | None] = []

    def put(number: int, tag: str | None) -> None:
        tags.append(file.put_if(f"{tag} {number}".encode(), tag))

    def put_at_once(tag: str | None) -> str:
        tags.clear()
        threads = [threading.Thread(target=put, args=(number, tag)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = (found for found in tags if found is not None)
        return winner

    first = put_at_once(None)
    second = put_at_once(first)
    found = file.tagged()
    assert found is not None and found[1] == second != first
    # neither an old tag nor that of an object which is gone
    assert file.put_if(b"x", first) is None
    file.unlink()
    assert file.put_if(b"x", second) is None


def test_an_object_that_is_put_again_has_another_time(bucket: str) -> None:
    file = object_path(f"{bucket}/file")
    file.touch()
    assert file.read_bytes() == b""
    file.write_bytes(b"content")
    file.touch()
    assert file.read_bytes() == b"content"


def test_the_code_of_an_error_is_that_of_its_cause() -> None:
    class Answer(Exception):
        response = {"Error": {"Code": "SlowDown"}}  # noqa: RUF012

    error = OSError("translated")
    error.__cause__ = Answer()
    assert code_of(error) == "SlowDown"
    assert code_of(OSError("of a disk")) == ""


def test_names_are_paths_of_the_same_kind(bucket: str) -> None:
    folder = object_path(f"{bucket}/a")
    assert isinstance(folder / "b", ObjectPath) and isinstance(folder.with_name("c"), ObjectPath)
