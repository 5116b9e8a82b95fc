"""What may be said of the running: workers, scoring, and where MLflow is."""

from __future__ import annotations

import pytest

from orchestrator.config.running import CheckpointsConfig, DuringConfig, EvaluationConfig, ScalingConfig, TrackingConfig
from tests.orchestrator.config.refusal import refused


def test_what_is_not_said_fits_any_machine() -> None:
    scaling = ScalingConfig()
    assert (scaling.workers, scaling.cpus_per_worker) == (1, 1)
    assert scaling.gpus_per_worker is None
    assert scaling.max_concurrent is None
    assert scaling.max_failures == 2
    assert (CheckpointsConfig().keep, CheckpointsConfig().delta) == ("all", False)
    assert (EvaluationConfig().placement, EvaluationConfig().rows) == ("auto", "all")
    assert EvaluationConfig().during is None
    assert (DuringConfig(every=5).examples, DuringConfig(every=5).window) == (256, 10)
    assert (TrackingConfig().uri, TrackingConfig().experiment) == (None, None)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("scaling.workers=0", ["scaling.workers", "greater than or equal to 1", "found 0"]),
        ("scaling.workers=[0, 2]", ["scaling.workers", "greater than or equal to 1", "found [0, 2]"]),
        ("scaling.workers=two", ["scaling.workers", "expected whole numbers", "found 'two'"]),
        ("scaling.workers=[1, 1.5]", ["scaling.workers", "expected whole numbers", "found [1, 1.5]"]),
        ("scaling.workers=true", ["scaling.workers", "found True"]),
        ("scaling.workers=null", ["scaling.workers", "expected whole numbers", "found None"]),
        ("scaling.workers=[4, 2]", ["scaling.workers", "the fewest and the most, such as [1, 4]", "found [4, 2]"]),
        ("scaling.workers=[1, 2, 4]", ["scaling.workers", "the fewest and the most", "found [1, 2, 4]"]),
        ("scaling={workers: [1, 2], gpus_per_worker: 0.5}", ["gpus_per_worker = 0.5 goes with workers = 1"]),
        ("scaling={workers: [2, 4], strategy: hsdp}", ["hsdp", "workers = [2, 4]", "ddp, fsdp"]),
        ("scaling.cpus_per_worker=0", ["scaling.cpus_per_worker", "greater than 0", "found 0"]),
        ("scaling.strategy=zero", ["scaling.strategy", "'ddp', 'fsdp' or 'hsdp'", "found 'zero'"]),
        ("scaling={workers: 2, gpus_per_worker: 0.5}", ["scaling", "gpus_per_worker = 0.5 goes with workers = 1"]),
        ("scaling.gpus_per_worker=-1", ["scaling.gpus_per_worker", "greater than or equal to 0", "found -1"]),
        ("scaling.max_concurrent=0", ["scaling.max_concurrent", "greater than or equal to 1", "found 0"]),
        ("scaling.max_failures=-1", ["scaling.max_failures", "greater than or equal to 0", "found -1"]),
        ("evaluation.batch=0", ["evaluation.batch", "greater than or equal to 1", "found 0"]),
        ("evaluation.placement=beside", ["evaluation.placement", "'async'", "'beside'"]),
        ("checkpoints.keep=first", ["checkpoints.keep", "'all', 'last' or 'none'", "found 'first'"]),
        ("checkpoints={keep: last, delta: true}", ["checkpoints", "delta: true goes with keep: all; with keep: last"]),
        ("evaluation.rows=lower", ["evaluation.rows", "'all' or 'seen'", "found 'lower'"]),
        ("evaluation.during={examples: 8}", ["evaluation.during.every", "required"]),
        ("evaluation.during={every: 0}", ["evaluation.during.every", "greater than or equal to 1", "found 0"]),
        ("evaluation.during={every: 5, window: 1}", ["evaluation.during.window", "greater than or equal to 2"]),
        ("evaluation.during={every: 5, rows: 8}", ["evaluation.during", "unknown key 'rows'"]),
        ("tracking.url=http://x", ["tracking", "unknown key 'url'. Did you mean 'uri'?"]),
    ],
)
def test_running_that_cannot_be_is_refused(override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message


def test_workers_are_a_number_or_the_fewest_and_the_most() -> None:
    one, fixed, elastic = (ScalingConfig(workers=workers) for workers in (3, (3, 3), (1, 4)))
    assert (one.fewest_workers, one.most_workers, one.is_elastic) == (3, 3, False)
    assert (fixed.fewest_workers, fixed.most_workers, fixed.is_elastic) == (3, 3, False)
    assert (elastic.fewest_workers, elastic.most_workers, elastic.is_elastic) == (1, 4, True)
    assert ScalingConfig.model_validate_json(elastic.model_dump_json()) == elastic
    assert [ScalingConfig(workers=(1, most), strategy="fsdp").is_sharded for most in (1, 2)] == [False, True]


def test_a_part_of_a_processor_and_no_second_attempt_are_allowed() -> None:
    scaling = ScalingConfig(cpus_per_worker=0.5, gpus_per_worker=0, max_failures=0)
    assert (scaling.cpus_per_worker, scaling.gpus_per_worker, scaling.max_failures) == (0.5, 0, 0)
