"""What a result was made with: software, source commit, and the load of the machine."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from orchestrator.store.events import SystemSample
from orchestrator.store.records.event import Report
from orchestrator.store.versions import library_versions


def describe() -> dict[str, Any]:
    """Versions, git commit (None outside a checkout) and machine."""
    return {
        "versions": dict(library_versions()),
        "git_commit": git_commit(),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} CPUs",
    }


def git_commit() -> str | None:
    """The commit of the source, with "+changes" where files differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        # Installed without its repository, or on a machine without git
        return None
    if changes:
        return commit + "+changes"
    return commit


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


class SystemSampler:
    """Records the machine's load every few seconds, where the training is, under MLflow's names for system metrics."""

    def __init__(self, report: Report, every: float = 5.0) -> None:
        self.report = report
        self.every = every
        self.last = 0.0
        # The first call only sets the start of the interval
        psutil.cpu_percent()

    def tick(self) -> None:
        """Take a sample if one is due."""
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        memory = psutil.virtual_memory()
        values: dict[str, int | float] = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_percentage": memory.percent,
            "system_memory_usage_megabytes": round(memory.used / 2**20),
            "process_memory_megabytes": round(psutil.Process().memory_info().rss / 2**20),
        }
        if torch.cuda.is_available():
            values["gpu_0_memory_usage_megabytes"] = round(torch.cuda.memory_allocated() / 2**20)
        self.report(SystemSample(values=values))
