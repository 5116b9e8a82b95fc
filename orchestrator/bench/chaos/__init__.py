"""Faults at random moments of real runs, and whether anything was lost by them: `orchestrator bench chaos`."""

from orchestrator.bench.chaos.faults import FAULTS, check_kinds
from orchestrator.bench.chaos.rounds import chaos
from orchestrator.bench.chaos.table import has_damage, print_chaos

__all__ = ["FAULTS", "chaos", "check_kinds", "has_damage", "print_chaos"]
