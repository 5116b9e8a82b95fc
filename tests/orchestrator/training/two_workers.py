"""Run by `torch.distributed.run`: every sequence of a configuration file, on as many workers as there are."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    for values in yaml.safe_load(Path(sys.argv[1]).read_text()):
        for sequence in plan(RunConfig.model_validate(values)):
            run_sequence(sequence)
    dist.destroy_process_group()
