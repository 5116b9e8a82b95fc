"""A Ray cluster of several nodes, in processes of this machine, to which the process of the tests is connected."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.orchestrator.failing import write_plugin

ROOT = Path(__file__).parents[3]


class Nodes(NamedTuple):
    """A cluster to which nodes are added and from which they are taken, and a user's plug-in that all of them import."""

    cluster: Any
    plugin: Path


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster with one node of two CPUs."""
    # a short path: Ray's sockets lie below it
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    plugin = write_plugin(folder / "users", "groups_plugin")
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patched.delenv(name)
        # read by the workers, which are no children of this process
        patched.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{plugin.parent}")
        patched.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")
        patched.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        patched.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
        patched.syspath_prepend(str(plugin.parent))
        head = {"num_cpus": 2, "include_dashboard": False, "temp_dir": str(folder / "ray")}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=cluster.address, log_to_driver=False)
        yield Nodes(cluster, plugin)
        ray.shutdown()
        cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
