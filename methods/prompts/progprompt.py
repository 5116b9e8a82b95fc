"""Progressive Prompts: a new soft prompt for every task, before those of all earlier tasks (arXiv 2301.12314)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, TuningMethod, generator, trainable
from methods.batch import Batch
from methods.prompts.soft_prompts import PromptedModel, random_token_embeddings
from methods.seam.card import PROMPT_RATES, Card
from methods.seam.cost import Cost
from methods.shared.tensors import freeze_all_but


class ProgPromptSettings(Settings):
    """`tokens`: 10 a task in the released example for T5-large, where the learning rate is 0.3 (for BERT 3e-5)."""

    tokens: int = Field(10, ge=1, description="vectors of each task's prompt")
    mlp: int | None = Field(
        None,
        ge=1,
        description="width of a residual two-layer network that the prompt passes while it trains; none: none",
    )


class _Prompts(nn.Module):
    """The prompts of the tasks so far, and the network through which the newest passes while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.task = nn.ParameterList()
        self.mlp: nn.Sequential | None = None

    def newest(self) -> Tensor:
        """The newest prompt [P, d] as the model reads it."""
        prompt: Tensor = self.task[-1]
        if self.mlp is None:
            return prompt
        return prompt + self.mlp(prompt)

    def until(self, count: int) -> Tensor | None:
        """The prompts of the first `count` tasks, the newest first."""
        if not count:
            return None
        # only the newest passes the network; the earlier ones hold what their network last gave
        last = self.task[count - 1]
        if count == len(self.task):
            last = self.newest()
        prompts = [last]
        for task_id in reversed(range(count - 1)):
            prompts.append(self.task[task_id])
        return torch.cat(prompts)


class ProgPrompt(Cost, TuningMethod):
    """Input of task k: [P_k, ..., P_1, x], with P_k (and a task head) trained and everything else frozen.

    A prompt starts from random tokens' embeddings. When task j is answered its own prompts [P_j, ..., P_1] are read, so the
    task must be known; for a task that was not trained yet, all that there are. In encoders the prompts stand behind the
    first token. We train all tasks' heads as one, and stop where the steps end, not where a dev score is best.
    """

    Settings = ProgPromptSettings
    card = Card(
        summary="a new soft prompt for every task, before those of all earlier tasks",
        paper="2301.12314",
        needs=("boundaries", "task labels"),
        memory="one prompt a task",
        space={"tokens": (5, 10, 20, 50)},
        training_space={"lr": PROMPT_RATES},
        default_lr=0.3,
        no_output_units="it trains no linear layer, only soft prompts",
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
    )

    def __init__(self, settings: ProgPromptSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.prompts = _Prompts()
        # the number of tasks whose prompts are read: while scoring, fewer than there are
        self.used = 0

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.prompted = PromptedModel(model, self.vectors)
        # inside the model, so that its devices, its optimizer and its checkpoints are the prompts' too
        model.add_module("soft_prompts", self.prompts)
        return model

    def vectors(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """[B, P, d]: the prompts that are read now, the same for every text."""
        prompts = self.prompts.until(self.used)
        if prompts is None:
            return embeds[:, :0]
        return prompts.expand(len(embeds), -1, -1)

    def grow(self, model: nn.Module, tasks: int) -> None:
        prompts = list(self.prompts.task)[:tasks]
        for prompt in prompts:
            prompt.requires_grad_(False)
        for task_id in range(len(prompts), tasks):
            # one generator a task: growing at once, as a resumed run does, draws what growing task by task draws
            rng = generator(self.context.seed, "progprompt", task_id)
            start = random_token_embeddings(self.prompted.embeddings, self.settings.tokens, rng)
            prompts.append(nn.Parameter(start))
        if prompts:
            prompts[-1].requires_grad_(True)
        self.prompts.task = nn.ParameterList(prompts)
        # `before_task` makes it anew; a state that is loaded has none
        self.prompts.mlp = None
        self.used = tasks

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        # the earlier prompts are frozen, so `trainable` alone would leave them out
        weights: dict[str, Tensor] = {}
        for name, parameter in self.prompts.named_parameters():
            weights[f"soft_prompts.{name}"] = parameter
        return weights | trainable(model)

    def without_decay(self) -> Sequence[nn.Parameter]:
        return list(self.prompts.task)

    def added_tokens(self, task_id: int) -> int:
        return (task_id + 1) * self.settings.tokens

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.used = task_id + 1
        if self.settings.mlp:
            self.prompts.mlp = self.network(task_id, self.prompts.task[-1])

    def network(self, task_id: int, prompt: Tensor) -> nn.Sequential:
        """Linear, tanh, linear; uniform in ±1/sqrt(d_in), as torch's, but from the seed; where the prompt is."""
        width = prompt.shape[1]
        hidden = self.settings.mlp
        network = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width)).to(prompt)
        rng = generator(self.context.seed, "progprompt", "mlp", task_id)
        # weight and bias of one layer, then of the other: a bias has its layer's range, as torch's has
        input_widths = (width, width, hidden, hidden)
        with torch.no_grad():
            for parameter, d_in in zip(network.parameters(), input_widths, strict=True):
                drawn = 2 * torch.rand(parameter.shape, generator=rng) - 1
                parameter.copy_(drawn / math.sqrt(d_in))
        return network

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        # a task that was not trained yet has no prompts of its own
        self.used = min(task_id + 1, len(self.prompts.task))

    def after_scoring(self, model: nn.Module) -> None:
        # the newest task is the one that is trained
        self.used = len(self.prompts.task)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        # the network is thrown away, so its result becomes the prompt (as in the paper)
        self.prompts.task[-1].copy_(self.prompts.newest())
        self.prompts.mlp = None
