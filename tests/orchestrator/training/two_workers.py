"""Run by `torch.distributed.run`: every sequence of a configuration file, on as many workers as there are.

Arguments: the file, how the workers share the model, and after how many tasks to end (0: after the last).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from orchestrator.training.sharding import current_workers

if __name__ == "__main__":
    file, strategy, until = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    for values in yaml.safe_load(Path(file).read_text()):
        for sequence in plan(RunConfig.model_validate(values)):
            parallel = current_workers(torch.device("cpu"), strategy)  # type: ignore[arg-type]
            # else what is compared afterwards would be equal for another reason
            assert (parallel.count, parallel.holds_parts) == (int(os.environ["WORLD_SIZE"]), strategy != "ddp")
            run_sequence(sequence, parallel=parallel, until=int(until) or None)
    dist.destroy_process_group()
