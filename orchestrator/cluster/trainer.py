"""One group of workers under Ray Train, which watches over it and starts it again where a worker dies."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from orchestrator import logs
from orchestrator.cluster.leaving import make_leave_file
from orchestrator.cluster.resources import ray_storage
from orchestrator.config.running import ScalingConfig
from orchestrator.storage.places import folder_at

logger = logging.getLogger(__name__)


def fit(of_group: Any) -> None:
    """Have a group do its work, by its `trainer`; returns when all of its workers have come back from it.

    Raises what Ray Train gave up over: more than `max_failures` deaths, or one in the moments in which the group was started.
    """
    import ray

    try:
        of_group.fit()
    finally:
        # after the cluster's end, by Ctrl-C say, to ask anything of Ray would start another one
        if ray.is_initialized():
            remove_leftovers()


def trainer(
    group: str,
    work: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    out: str,
    scaling: ScalingConfig,
    gpus: float,
    max_failures: int,
) -> Any:
    """The TorchTrainer of one group, whose workers call `work` with the settings; it bears so many of their deaths."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from orchestrator.cluster.deaths import NoteDeaths
    from orchestrator.cluster.elastic import ElasticTrainer, LeaveBeforeResize

    storage = folder_at(out) / "ray"
    run_name = f"{group}-{settings['run'][:8]}"
    introductions = storage / run_name / "workers"
    resize = make_leave_file(out, run_name)
    # typed for the older version of Ray Train, which calls other methods of them
    callbacks: Any = [NoteDeaths(group, introductions, folder_at(settings["run_logs"])), LeaveBeforeResize(resize)]
    of_group = {
        "group": group,
        "strategy": scaling.strategy,
        "introductions": str(introductions),
        "resize": str(resize),
    }
    kind: Callable[..., Any] = TorchTrainer
    if scaling.is_elastic:
        kind = partial(ElasticTrainer, sizes=tuple(settings["sizes"]))
    return kind(
        work,
        train_loop_config=settings | of_group,
        scaling_config=_scaling(scaling, gpus),
        run_config=ray.train.RunConfig(
            name=run_name,
            **ray_storage(out),
            callbacks=callbacks,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # Train V2 has it
        ),
    )


def _scaling(scaling: ScalingConfig, gpus: float) -> Any:
    """What Ray Train is to reserve for a group."""
    import ray.train

    from orchestrator.cluster.elastic import RESIZE_SECONDS

    resources_per_worker = {"CPU": scaling.cpus_per_worker}
    if gpus:
        resources_per_worker["GPU"] = gpus
    num_workers: Any = scaling.most_workers
    if scaling.is_elastic:
        num_workers = (scaling.fewest_workers, scaling.most_workers)
    # its types are those of the older version of Ray Train
    kind: Any = ray.train.ScalingConfig
    return kind(
        num_workers=num_workers,
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        use_gpu=gpus > 0,
        resources_per_worker=resources_per_worker,
    )


def remove_leftovers() -> None:
    """Give back what Ray Train's controllers had reserved for their workers, of those that were killed.

    Ray keeps it until the end of the whole job, and a group that is started anew would wait for it for ever.
    """
    import ray
    import ray._private.state
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    own_job = ray.get_runtime_context().get_job_id()
    # Ray's public tables do not say who made a placement group
    accessor: Any = ray._private.state.state._connect_and_get_accessor()
    kind: Any = importlib.import_module("ray.core.generated.gcs_pb2").PlacementGroupTableData
    for raw in accessor.get_placement_group_table():
        table = kind.FromString(raw)
        is_there = table.state != kind.REMOVED
        if is_there and table.creator_actor_dead and table.creator_job_id.hex() == own_job:
            logger.info("removing the placement group %s of a process that died", table.placement_group_id.hex())
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(table.placement_group_id)))


def gave_up(group: str, error: Exception, out: str) -> str:
    """The line on a group that Ray Train gave up; its traceback goes to the log that the line names."""
    log = logs.driver_log(out)
    logs.write_failure(log, f"the workers of {group}", error)
    return f"the workers of {group} gave up: {_last_line(error)}; log: {log}"


def _last_line(error: BaseException) -> str:
    """The last line of an error's message: where Ray puts the cause, below its own stack."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[-1].strip()
