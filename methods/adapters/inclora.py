"""IncLoRA: a new low-rank adapter for every task; the earlier ones stay as they are, and all are added up."""

from __future__ import annotations

from methods.adapters.adapter_per_task import AdapterPerTask, AdapterPerTaskSettings
from methods.seam.card import ADAPTER_RATES, Card


class IncLora(AdapterPerTask):
    """y = W x + (alpha / r) sum over tasks of B_i A_i x in the target modules; only the newest B_i, A_i and a head train.

    The baseline of O-LoRA (arXiv 2310.14152), which is this with penalties. No task label is needed: all adapters always
    act. The state before the first task has none.
    """

    Settings = AdapterPerTaskSettings
    card = Card(
        summary="a new low-rank adapter for every task, all added up",
        paper="2310.14152",
        needs=("boundaries",),
        memory="one adapter a task",
        space={"r": (4, 8, 16)},
        training_space={"lr": ADAPTER_RATES},
        only_lora_layers=True,
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
    )
