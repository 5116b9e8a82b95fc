"""What a cluster has, and what fits on it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import interruption, logs
from orchestrator.config.running import ScalingConfig
from orchestrator.errors import CommandFailed, UserError
from orchestrator.storage.places import folder_at, is_local

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
# other addresses are words, such as auto, or have a scheme
HOST_AND_PORT = re.compile(r"[^/]+:\d{1,5}")


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of a cluster."""

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
    import ray

    # a search holds one cluster over both of its phases, and ends it itself
    if ray.is_initialized():
        yield _cluster_resources()
        return
    logger.info("connecting to Ray" if cluster_is_running() else "starting a Ray cluster on this machine")
    _connect()
    # Ray has put handlers of its own in their place
    interruption.listen()
    try:
        yield _cluster_resources()
    finally:
        ray.shutdown()


def _connect() -> None:
    """Connect to Ray, or start it. Raises UserError where no cluster answers, and CommandFailed where none starts here."""
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    try:
        # Ray itself tries for many minutes
        if HOST_AND_PORT.fullmatch(address):
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(**_connection())
    except SystemExit:
        # a handler of Ray's own for SIGTERM, which is in place before its start is over
        interruption.listen()
        signal.raise_signal(signal.SIGTERM)
    # what cannot connect has many types in Ray, among them plain Exception
    except Exception as error:
        ray.shutdown()
        if cluster_is_running():
            raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {logs.reason(error)}") from error
        raise CommandFailed(f"Ray did not start on this machine: {logs.reason(error)}") from error


def _connection() -> dict[str, Any]:
    """The arguments of `ray.init`."""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster_is_running():
        return options
    # the watcher asks a cloud provider whether this machine is about to be taken away
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    return options | {
        "address": "local",
        "num_cpus": os.cpu_count(),
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
    }


def _cluster_resources() -> Resources:
    import ray

    total = ray.cluster_resources()
    resources = Resources(total.get("CPU", 0.0), total.get("GPU", 0.0))
    logger.info("the cluster has %g CPUs and %g GPUs", resources.cpus, resources.gpus)
    return resources


def gpus_per_worker(scaling: ScalingConfig, resources: Resources) -> float:
    """The GPUs of each worker: as asked for; by default 1 where the cluster has GPUs."""
    if scaling.gpus_per_worker is not None:
        return scaling.gpus_per_worker
    if resources.gpus >= 1:
        return 1.0
    return 0.0


def max_concurrent_groups(scaling: ScalingConfig, resources: Resources) -> int:
    """How many groups of workers fit at a time. Raises UserError where not even one does."""
    # a number that was asked for may count on nodes that are still to come
    if scaling.max_concurrent is not None:
        return scaling.max_concurrent
    gpus = gpus_per_worker(scaling, resources)
    workers = _fits(resources.cpus, scaling.cpus_per_worker)
    if gpus:
        workers = min(workers, _fits(resources.gpus, gpus))
    if workers < scaling.fewest_workers:
        asked = f"{scaling.fewest_workers} x ({scaling.cpus_per_worker:g} CPU, {gpus:g} GPU)"
        raise UserError(
            f"scaling.workers: asks for {asked}, but the cluster has {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
        )
    # groups that may grow have room to
    return max(1, workers // scaling.most_workers)


def _fits(available: float, each: float) -> int:
    """How often `each` goes into what is available."""
    # 9 / (3 * 0.1) is 30, though floating-point numbers say a little less
    return int(available / each + 1e-9)


def scores_asynchronously(placement: str, scaling: ScalingConfig, resources: Resources, sequences: int) -> bool:
    """Whether scores are computed by actors of their own: where asked, or where training leaves a CPU (and GPU) free."""
    if placement != "auto":
        return placement == "async"
    groups = min(sequences, max_concurrent_groups(scaling, resources))
    workers = groups * scaling.most_workers
    gpus = gpus_per_worker(scaling, resources)
    free_cpus = resources.cpus - workers * scaling.cpus_per_worker
    free_gpus = resources.gpus - workers * gpus
    return free_cpus >= 1 and (gpus == 0 or free_gpus >= gpus)


def ray_storage(out: str) -> dict[str, Any]:
    """Where Ray keeps records of its own of a run, as arguments of its RunConfig."""
    folder = folder_at(out) / "ray"
    if is_local(folder):
        return {"storage_path": str(folder)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # the client that everything else is written with: Ray's own would have settings of its own
    objects: Any = folder
    return {"storage_path": objects.path, "storage_filesystem": PyFileSystem(FSSpecHandler(objects.fs))}
