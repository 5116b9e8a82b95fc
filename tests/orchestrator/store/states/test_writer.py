"""The thread that writes: what is held meanwhile, and where its errors come out."""

from __future__ import annotations

import contextlib
import threading

import pytest

from orchestrator.store.states.writer import StateWriter


def test_its_process_goes_on_and_what_is_held_is_given_back_when_it_is_written() -> None:
    goes_on = threading.Event()
    told: list[str] = []
    held = contextlib.ExitStack()
    held.callback(told.append, "given back")

    def write() -> None:
        assert goes_on.wait(60), "whoever started it waits for it"
        told.append("written")

    writer = StateWriter()
    assert writer.is_idle and not writer.has_ended
    writer.start(write, held)
    assert not writer.is_idle and not writer.has_ended and told == []
    goes_on.set()
    writer.wait()
    assert told == ["written", "given back"]
    assert writer.is_idle and not writer.has_ended
    writer.close()


def test_an_error_comes_out_once_where_it_is_waited_for() -> None:
    told: list[str] = []
    held = contextlib.ExitStack()
    held.callback(told.append, "given back")

    def fail() -> None:
        raise OSError(28, "No space left on device")

    writer = StateWriter()
    writer.start(fail, held)
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert told == ["given back"]
    writer.wait()
    assert writer.is_idle


def test_to_close_it_is_to_have_it_end_what_it_was_given() -> None:
    told: list[str] = []
    goes_on = threading.Event()

    def write() -> None:
        goes_on.wait(60)
        told.append("written")

    writer = StateWriter()
    writer.start(write, contextlib.ExitStack())
    threading.Timer(0.2, goes_on.set).start()
    writer.close()
    assert told == ["written"]
