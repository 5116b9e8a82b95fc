"""The part under check, and the small runs that it is checked in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods import Card, Method, TuningMethod, method_class
from orchestrator.config.experiment import RunConfig
from orchestrator.contract.observation import Observation, observed
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import State, Store
from orchestrator.training.sequence import run_sequence

# Built-in models at width 32: two steps of them take a fraction of a second. Without dropout, whose draws depend on how a
# batch is cut.
SMALL_MODELS: dict[str, dict[str, Any]] = {
    "tiny-t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "dropout_rate": 0.0},
    "tiny-bert": {"hidden_size": 32, "intermediate_size": 64},
    "tiny-llama": {"hidden_size": 32, "intermediate_size": 64},
}
# Many parts do nothing in a first task, act in the second, and resume in the third from what they kept
TASKS = 3
STEPS = 2
Spec = Mapping[str, Any]


def usual_model(card: Card) -> str:
    """The model that a part is checked on where nobody names one."""
    if card.requires_head:
        return "tiny-bert"
    return "tiny-t5"


@dataclass(frozen=True)
class Subject:
    """A part by its name, on a model, with a folder for what its runs store."""

    name: str
    folder: Path
    model: str = "tiny-t5"
    tuning: str = "full"

    @property
    def type(self) -> type[Method]:
        """The part's class."""
        return method_class(self.name)

    @property
    def card(self) -> Card:
        """The part's card."""
        return self.type.card

    @property
    def is_tuning(self) -> bool:
        """Whether it is a tuning method, not a plug-in."""
        return issubclass(self.type, TuningMethod)

    def spec(self, **settings: Any) -> Spec:
        """A method that uses the part with these settings beside its quick ones; a plug-in on the subject's tuning method."""
        part = {"name": self.name, **self.card.quick, **settings}
        if self.is_tuning:
            return {"name": "subject", "tuning": part}
        return {"name": "subject", "tuning": self.tuning, "plugins": [part]}

    def plain(self) -> Spec:
        """The subject's tuning method alone."""
        return {"name": "plain", "tuning": self.tuning}

    def sequence(self, store: str, spec: Spec, **training: Any) -> SequencePlan:
        """Two steps on each of three tasks of the embedded stream, kept in a store of its own below the folder."""
        config = RunConfig.model_validate(
            {
                "name": "contract",
                "model": {
                    "name": self.model,
                    "overrides": SMALL_MODELS[self.model],
                    "max_source": 48,
                    "max_target": 8,
                },
                "streams": [{"name": "embedded", "max_train": 8 * STEPS, "max_test": 10, "first": TASKS}],
                "methods": [spec],
                "seeds": [7],
                # two micro-batches a step: gradients are accumulated in every check
                "training": {"lr": 1e-3, "global_batch": 8, "micro_batch": 4, **training},
                "out": str(self.folder / store),
            }
        )
        (sequence,) = plan(config)
        return sequence

    def trained(self, store: str, spec: Spec, **training: Any) -> SequencePlan:
        """As `sequence`, trained."""
        sequence = self.sequence(store, spec, **training)
        # the checks look at weights and states; generating answers would take most of the time
        run_sequence(sequence, evaluate=False)
        return sequence

    @cached_property
    def observed_run(self) -> tuple[SequencePlan, Observation]:
        """A run with the part's own settings, and what the part did in it. Several checks look at it."""
        with exact_arithmetic(), observed(self.type) as notes:
            return self.trained("whole", self.spec()), notes


def stored_state(sequence: SequencePlan, tasks_seen: int) -> State:
    """What the checkpoint after so many tasks holds."""
    return Store(folder_at(sequence.out)).load(sequence.keys[tasks_seen])


def stored_weights(sequence: SequencePlan, tasks_seen: int) -> Mapping[str, Tensor]:
    """The trained weights after so many tasks, by name."""
    return stored_state(sequence, tasks_seen).weights


@contextmanager
def exact_arithmetic(dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """One thread, so that sums have one order, and models of the given type."""
    threads = torch.get_num_threads()
    before = torch.get_default_dtype()
    torch.set_num_threads(1)
    # models and adapters alike are built in torch's default type
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
