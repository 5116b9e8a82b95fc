"""What methods promise whose later tasks move nothing of earlier ones: their answers stay, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from methods import Context, Settings
from orchestrator.evaluation.curves.during import undisturbed
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.methods.reference import Noise


def logits_of(learner: Learner, task: int, answered_as: int) -> Tensor:
    """The logits of a task's first texts, answered as that task's."""
    module = learner.family.module.eval()
    learner.stack.before_scoring(module, answered_as)
    with torch.no_grad():
        return learner.forward(module, learner.family.collate(learner.features(task)[:8]))[1]


def assert_never_forgotten(learner: Learner) -> list[Tensor]:
    """Not a bit of an earlier task's logits changes over three tasks, though a plug-in changes the gradients.

    Gives the logits of each task's texts.
    """
    learner.stack.parts.append(("noise", Noise(Settings(), Context(0))))
    found: list[list[Tensor]] = [[], [], []]
    for task in range(3):

        def look(step: int, task: int = task) -> None:
            """Amid the training of a task too, those before it are answered as they ever are."""
            with undisturbed(learner.scored_model()):
                for old in range(task):
                    assert torch.equal(logits_of(learner, old, old), found[old][0])

        train_task(learner, task, lambda event: None, look=look)
        for old in range(task + 1):
            found[old].append(logits_of(learner, old, old))
    for logits in found:
        assert all(torch.equal(logits[0], later) for later in logits)
    assert not torch.equal(logits_of(learner, 0, 1), found[0][0]), "else the tasks would all answer alike"
    return [logits[0] for logits in found]
