"""What tests share: small real models on the embedded stream, and where the real text is."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported: no test asks the network

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel

SMALL: dict[str, dict[str, Any]] = {
    "tiny-t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2},
    "tiny-bert": {"hidden_size": 32, "intermediate_size": 64},
    "tiny-roberta": {"hidden_size": 32, "intermediate_size": 64},
    "tiny-llama": {"hidden_size": 32, "intermediate_size": 64},
}
READING = ("scoring", "precision", "base", "attention")
FAMILIES = ("tiny-t5", "tiny-bert", "tiny-llama")


# files whose tests start Ray: one at a time, so that no two clusters share the machine
CLUSTERS = (
    "test_ray.py",
    "test_groups.py",
    "test_protocol.py",
    "test_scoring_pool.py",
    "test_warm_groups.py",
    "test_rounds.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says what one process of several (`pytest -n`) runs together: a file, or of the contract all checks of a subject."""
    for item in items:
        group = item.nodeid.split("::")[0]
        if item.path.name in CLUSTERS:
            group = "clusters"
        elif item.path.name == "test_contract.py":
            group = item.nodeid.split("-tiny")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    # the longest group begins first, or the other processes would wait for it at the end
    items.sort(key=lambda item: item.path.name not in CLUSTERS)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stops a run in several processes whose groups got lost: pytest 9.2 with pytest-xdist 3.8 says nothing of it."""
    if hasattr(session.config, "workerinput") and not all("@" in item.nodeid for item in session.items):
        pytest.exit("the tests are not run in groups, so that several Ray clusters would share the machine", 1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Equality bit for bit needs one order of summation."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _packed_corpora(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test leaves packed corpora among the user's, or finds what an earlier version has packed."""
    os.environ["CL_PACKED_DIR"] = str(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module", autouse=True)
def _frozen_imports() -> None:
    """Collections look at what a module's own tests made: each sequence ends in one, over half a million imported objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _forgotten_plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that a test wrote is not found imported by the next one, which writes another of that name."""
    before = set(sys.modules)
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(vars(sys.modules[name]).get("__file__", "")).startswith(written):
            del sys.modules[name]


@pytest.fixture
def float64() -> Iterator[None]:
    """Where rounding must not hide a difference of logic, or be taken for one."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small_config(out: Path | str, **changes: Any) -> RunConfig:
    """Three steps a task on two or more tasks of the embedded stream, on a model of width 32."""
    model = changes.pop("model", "tiny-t5")
    overrides = {**SMALL[model], **changes.pop("overrides", {})}
    reading = {key: changes.pop(key) for key in READING if key in changes}
    stream = {"name": "embedded", "max_train": 24, "max_test": 10, **changes.pop("stream", {})}
    training = {"lr": 1e-3, "global_batch": 8, **changes.pop("training", {})}
    return RunConfig.model_validate(
        {
            "name": "small",
            "model": {"name": model, "overrides": overrides, "max_source": 48, "max_target": 8, **reading},
            "streams": [stream],
            "methods": ["ft"],
            "seeds": [7],
            "training": training,
            "out": str(out),
            **changes,
        }
    )


@pytest.fixture
def sequence_of(tmp_path: Path) -> Callable[..., SequencePlan]:
    """Makes the one sequence of a small configuration; `out` names a store below the test's folder."""

    def make(out: str = "out", **changes: Any) -> SequencePlan:
        (sequence,) = plan(small_config(tmp_path / out, **changes))
        return sequence

    return make


@pytest.fixture
def learner_of(sequence_of: Callable[..., SequencePlan]) -> Callable[..., Learner]:
    """Makes a learner on one worker, which holds the initial model."""

    def make(**changes: Any) -> Learner:
        sequence = sequence_of(**changes)
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load_initial()
        return learner

    return make


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The URL of an S3 server on a port of its own; the environment names it to every client, in other processes too."""
    # imported where it is needed: most tests wait for neither
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**settings, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        yield settings["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def bucket(object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a bucket of the test's own."""
    import requests

    name = f"b{uuid.uuid4().hex[:12]}"
    requests.put(f"{object_store}/{name}", timeout=10).raise_for_status()
    # what must lie on a disk all the same
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://{name}"


@pytest.fixture(scope="session")
def benchmark_folder() -> Path:
    """The folder of real text; skips where it is missing."""
    folder = Path(os.environ.get("CL_BENCHMARK_DIR", "../shared/cl_benchmark")).resolve()
    if not folder.is_dir():
        _missing(f"no real text: {folder} is missing (CL_BENCHMARK_DIR)")
    return folder


def _missing(what: str) -> None:
    """A skip; but a failure where all of the test data has to be there."""
    if os.environ.get("CL_BENCHMARK_REQUIRED"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def golden(benchmark_folder: Path) -> dict[str, Any]:
    """Logged accuracy matrices of a public repository, which lie beside the real text."""
    file = benchmark_folder.parent / "golden" / "olora_logged_matrices.json"
    if not file.exists():
        _missing(f"no golden matrices: {file} is missing")
    content: dict[str, Any] = json.loads(file.read_text())
    return content
