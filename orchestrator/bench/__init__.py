"""Measurements behind the project's claims: one file for each command of `orchestrator bench`."""

from orchestrator.bench.costs import method_costs, print_method_costs
from orchestrator.bench.evaluation import evaluation_costs, print_evaluation_costs
from orchestrator.bench.reuse import print_search_reuse, search_reuse
from orchestrator.bench.steps import migu_step, print_migu_step

__all__ = [
    "evaluation_costs",
    "method_costs",
    "migu_step",
    "print_evaluation_costs",
    "print_method_costs",
    "print_migu_step",
    "print_search_reuse",
    "search_reuse",
]
