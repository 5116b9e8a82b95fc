"""Events as tests need them."""

from __future__ import annotations

from orchestrator.store.events import CheckpointSaved, ProbeComputed, ScoreComputed, SequenceStarted, Step


def started(*tasks: str) -> SequenceStarted:
    """A sequence of those tasks."""
    return SequenceStarted(
        id="s", tasks=tasks, sequence={}, data=[], workers=1, device="cpu", versions={}, git_commit=None, machine="m"
    )


def step(task_id: int, number: int, loss: float = 1.0) -> Step:
    """An optimizer step with that loss."""
    return Step(task_id=task_id, step=number, loss=loss, lr=1e-3, grad_norm=1.0, tokens_per_s=10.0)


def score(tasks_seen: int, task_id: int, percent: float, n: int = 10) -> ScoreComputed:
    """A score on a task that is called by its number."""
    return ScoreComputed(
        tasks_seen=tasks_seen, task_id=task_id, task=str(task_id), key="k", score=percent, score_options=None,
        correct=0, n=n, seconds=0.1,
    )  # fmt: skip


def checkpoint(task_id: int) -> CheckpointSaved:
    """The state after a task, trained in two seconds and three steps."""
    return CheckpointSaved(
        task_id=task_id, task=str(task_id), key="k", path="/p", bytes=1, seconds=2.0, usage={"steps": 3}, reused=False,
        diagnostics={},
    )  # fmt: skip


def probe(tasks_seen: int, name: str, percent: float) -> ProbeComputed:
    """A result in a benchmark of that name, with five rows."""
    return ProbeComputed(
        tasks_seen=tasks_seen, probe=name, key="k", metric="acc", score=percent, better="higher", n=5,
        numbers={"acc": percent, "acc_norm (x)": 1.0}, seconds=1.0,
    )  # fmt: skip
