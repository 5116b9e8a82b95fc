"""TODO orchestrator.cluster.resources"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.config.running import ScalingConfig
from orchestrator.errors import UserError


@dataclass(frozen=True)
class Resources:
    """What a cluster has."""

    cpus: float
    gpus: float


def local_resources() -> Resources:
    """What this machine would bring into a local cluster; starts nothing."""
    import torch

    return Resources(float(os.cpu_count() or 1), float(torch.cuda.device_count()))


def cluster_is_running() -> bool:
    """Whether the environment names a cluster to connect to (as in a submitted job)."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def cluster() -> Iterator[Resources]:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine and end it afterwards."""
    import logging

    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not cluster_is_running():
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        options |= {
            "address": "local",
            "num_cpus": os.cpu_count(),
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
        }
    mine = not ray.is_initialized()  # else a search holds one cluster over both of its phases
    if mine:
        ray.init(**options)
    try:
        total = ray.cluster_resources()
        yield Resources(total.get("CPU", 0.0), total.get("GPU", 0.0))
    finally:
        if mine:
            ray.shutdown()


def gpus_per_worker(scaling: ScalingConfig, resources: Resources) -> float:
    """As asked for; by default 1 where there are GPUs."""
    if scaling.gpus_per_worker is not None:
        return scaling.gpus_per_worker
    return 1.0 if resources.gpus >= 1 else 0.0


def max_concurrent_groups(scaling: ScalingConfig, resources: Resources) -> int:
    """How many groups of workers fit at a time. Raises UserError where not even one does."""
    if scaling.max_concurrent is not None:
        return scaling.max_concurrent
    gpus = gpus_per_worker(scaling, resources)
    fits = [_fits(resources.cpus, scaling.workers * scaling.cpus_per_worker)]
    if gpus:
        fits.append(_fits(resources.gpus, scaling.workers * gpus))
    if min(fits) < 1:
        asked = f"{scaling.workers} x ({scaling.cpus_per_worker:g} CPU, {gpus:g} GPU)"
        raise UserError(
            f"scaling.workers: asks for {asked}, but the cluster has {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
        )
    return int(min(fits))


def _fits(has: float, each: float) -> int:
    """How often `each` goes into what there is; 1 / 0.2 is 5."""
    return int(has / each + 1e-9)


def scores_asynchronously(where: str, scaling: ScalingConfig, resources: Resources, sequences: int) -> bool:
    """Whether scores are computed by tasks of their own: where asked, or where training leaves a CPU (and GPU) free."""
    if where != "auto":
        return where == "async"
    groups = min(sequences, max_concurrent_groups(scaling, resources))
    gpus = gpus_per_worker(scaling, resources)
    free_cpus = resources.cpus - groups * scaling.workers * scaling.cpus_per_worker
    free_gpus = resources.gpus - groups * scaling.workers * gpus
    return free_cpus >= 1 and (gpus == 0 or free_gpus >= gpus)
