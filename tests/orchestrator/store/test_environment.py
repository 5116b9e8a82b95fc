"""What a result was made with, and the load of the machine."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from orchestrator.store.environment import SystemSampler, describe, git_commit
from orchestrator.store.events import SystemSample
from orchestrator.store.records.event import Event


def test_versions_are_those_that_are_installed() -> None:
    import torch

    found = describe()
    assert found["versions"]["torch"] == torch.__version__
    assert "CPUs" in found["machine"]


def test_files_that_differ_from_the_commit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc\n", "status": ""}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=answers[command[1]])

    monkeypatch.setattr(subprocess, "run", run)
    assert git_commit() == "abc"
    answers["status"] = " M orchestrator/run.py\n"
    assert git_commit() == "abc+changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", run)
    assert git_commit() is None


def test_a_sample_is_taken_when_it_is_due() -> None:
    events: list[Event] = []
    often = SystemSampler(events.append, every=0.0)
    often.tick()
    often.tick()
    assert len(events) == 2
    sample = events[0]
    assert isinstance(sample, SystemSample)
    assert sample.values["process_memory_megabytes"] > 1
    seldom = SystemSampler(events.append, every=1e9)
    seldom.last = often.last
    seldom.tick()
    assert len(events) == 2
