"""A storage that will not do is known before anything is computed for it, in one line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.storage.door import check_answers, check_conditions, check_locks
from orchestrator.storage.places import folder_at


def refusal(check: Callable[[str], None], out: str) -> str:
    """The line in which a storage is refused, within seconds."""
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        check(out)
    assert time.monotonic() - began < 10
    line = str(refused.value)
    assert "\n" not in line and len(line) < 300
    return line


@pytest.fixture
def forgotten_clients() -> Iterator[Callable[[], None]]:
    """Forgets the clients, each of which keeps the settings that it was made with; before and after a test."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem.clear_instance_cache
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_does_what_it_should_is_left_as_it_was(bucket: str) -> None:
    check_answers(bucket)
    check_conditions(f"{bucket}/runs")
    assert list(folder_at(bucket).iterdir()) == []


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    for check in (check_answers, check_conditions):
        assert refusal(check, f"{bucket}-other/runs").endswith(": there is no such bucket")


@pytest.mark.usefixtures("forgotten_clients")
def test_a_store_that_does_not_answer(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for check in (check_answers, check_conditions):
        assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9' in refusal(check, f"{bucket}/runs")


@pytest.mark.usefixtures("forgotten_clients")
def test_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # neither the user's own, nor those of a machine in a cloud
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "Unable to locate credentials" in refusal(check_answers, f"{bucket}/runs")


@pytest.mark.parametrize("unread", ["HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"])
@pytest.mark.usefixtures("forgotten_clients")
def test_a_store_that_puts_whatever_the_conditions(unread: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    store = DomainDispatcherApplication(create_backend_app)

    def careless(environ: dict[str, Any], start_response: Any) -> Any:
        """The same server, which does not read the header of a condition, as older ones do not."""
        environ.pop(unread, None)
        return store(environ, start_response)

    server = make_server("127.0.0.1", 0, careless, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        line = refusal(check_conditions, f"{bucket}/runs")
        assert line.endswith("does not heed If-None-Match and If-Match, so that two runs would train the same")
    finally:
        server.shutdown()
        thread.join()


def test_a_file_system_with_locks(tmp_path: Path) -> None:
    check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_whose_locks_hold_nobody_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # as with NFS that is mounted with `nolock`, and some that are mounted by FUSE
    monkeypatch.setattr("fcntl.flock", lambda file, operation: None)
    with pytest.raises(UserError, match="a file system whose locks hold nobody off") as refused:
        check_locks(tmp_path)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(file: object, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unknown)
    with pytest.raises(UserError, match="is on a file system without locks: No locks available"):
        check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []
