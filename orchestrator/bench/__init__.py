"""Measurements behind the project's claims: one file for each command of `orchestrator bench`."""

from orchestrator.bench.chaos import chaos, check_kinds, has_damage, print_chaos
from orchestrator.bench.checkpoints import checkpoint_costs, print_checkpoint_costs
from orchestrator.bench.corpus import corpus_costs, print_corpus_costs
from orchestrator.bench.costs import method_costs, print_method_costs
from orchestrator.bench.evaluation import evaluation_costs, print_evaluation_costs
from orchestrator.bench.fused import fused_trials, print_fused_trials
from orchestrator.bench.made_records import Size
from orchestrator.bench.reuse import print_search_reuse, search_reuse
from orchestrator.bench.scale import print_scale, scale
from orchestrator.bench.steps import migu_step, print_migu_step
from orchestrator.bench.trainer import print_trainer_step, trainer_step

__all__ = [
    "Size",
    "chaos",
    "check_kinds",
    "checkpoint_costs",
    "corpus_costs",
    "evaluation_costs",
    "fused_trials",
    "has_damage",
    "method_costs",
    "migu_step",
    "print_chaos",
    "print_checkpoint_costs",
    "print_corpus_costs",
    "print_evaluation_costs",
    "print_fused_trials",
    "print_method_costs",
    "print_migu_step",
    "print_scale",
    "print_search_reuse",
    "print_trainer_step",
    "scale",
    "search_reuse",
    "trainer_step",
]
