"""Two gloo workers give what one gives.

In float64, where rounding cannot tip MIGU's choice between two channels of nearly equal magnitude: a difference here is one of
logic. (In float32 a tipped row moved the loss by 1e-5 relative; tests/orchestrator/test_ray.py bounds float32.)
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from methods.masking.migu import Migu
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import read_view
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES, small_config
from tests.gloo import in_workers
from tests.steps import losses_of

ROOT = Path(__file__).parents[3]


def test_one_worker_is_plain_training() -> None:
    alone = Parallel()
    model = torch.nn.Linear(2, 1)
    assert alone.prepare(model) is model
    assert alone.writes
    weights = {"weight": model.weight}
    assert alone.full_state(weights) == weights
    assert not alone.holds_parts
    assert alone.place(model, [], None) is model
    alone.backward(3.0 * model.weight.sum())
    # the gradient is [3, 3], of norm sqrt(18)
    assert alone.clip_gradients([model.weight], None) == pytest.approx(18**0.5)
    assert torch.equal(model.weight.grad, torch.full((1, 2), 3.0))  # type: ignore[arg-type]
    assert alone.clip_gradients([model.weight], 1.0) == pytest.approx(18**0.5)
    assert float(model.weight.grad.norm()) == pytest.approx(1.0, rel=1e-5)  # type: ignore[union-attr]


def test_rows_go_into_the_first_of_a_parameter() -> None:
    """A stream with more labels has a larger head, whose other rows stay."""
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    Parallel().write_rows(weight, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert weight.tolist() == [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]
    assert weight.requires_grad and weight.grad_fn is None


def test_what_is_not_finite_is_seen() -> None:
    good = torch.ones(3)
    assert Parallel().all_finite([good, good])
    assert Parallel().all_finite([])
    for bad in (math.nan, math.inf):
        assert not Parallel().all_finite([torch.tensor([1.0, bad]), good])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_thing_is_done_by_one_worker(count: int) -> None:
    shares = [Parallel(rank, count).share_of("abcde") for rank in range(count)]
    assert sorted("".join("".join(share) for share in shares)) == list("abcde")
    assert [Parallel(rank, count).writes for rank in range(count)] == [True, *[False] * (count - 1)]


def test_gradients_are_exchanged_in_the_last_micro_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    class Wrapped(torch.nn.Module):
        def no_sync(self) -> contextlib.AbstractContextManager[None]:
            entered.append(self)
            return contextlib.nullcontext()

    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", Wrapped)
    module = Wrapped()
    for is_last in (False, False, True):
        with Parallel(0, 2).accumulate(module, is_last):
            pass
    assert entered == [module, module]


def test_only_kept_rows_travel_between_workers(tmp_path: Path) -> None:
    """Of MIGU's layers; the rest goes as ever. Counted by what each worker gives to an exchange of its own."""
    numbers: dict[str, Any] = {"training": {"lr": 1e-3}, "stream": {"first": 2, "max_train": 8, "max_test": 2}}
    migu = {"name": "migu", "ratio": 0.25, "mask_first_task": True, "diagnostics": False}
    (sequence,) = plan(small_config(tmp_path / "two", methods=[{"tuning": "full", "plugins": [migu]}], **numbers))

    def check(rank: int) -> None:
        learner = Learner(sequence, sequence.open_stream(), Parallel.current(torch.device("cpu")))
        learner.load_initial()
        (_, part) = learner.stack.parts[1]
        assert isinstance(part, Migu)
        sizes: list[int] = []
        mean = part.context.mean_over_workers

        def counted(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return mean(tensor)

        part.context = replace(part.context, mean_over_workers=counted)
        wrapped: list[Any] = []
        prepare = learner.parallel.prepare

        def noted(*arguments: Any) -> Any:
            wrapped.append(prepare(*arguments))
            return wrapped[-1]

        object.__setattr__(learner.parallel, "prepare", noted)
        train_task(learner, 0, lambda event: None)
        whole = sum(maskable.weight.numel() for maskable in part.weights)
        kept = sum(math.ceil(0.25 * m.num_units) * m.weight.shape[1] for m in part.weights)
        units = sum(m.num_units for m in part.weights)
        # one step: the magnitudes of all units, and the rows
        assert sizes == [units, kept]
        assert kept == whole // 4
        exchanged = {id(maskable.weight) for maskable in part.weights}
        ignored = wrapped[0].parameters_to_ignore
        assert {id(p) for n, p in wrapped[0].module.named_parameters() if n in ignored} == exchanged

    in_workers(check, 2, tmp_path)


def test_nobody_else_wraps_a_model_or_talks_to_the_process_group() -> None:
    found = []
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        text = path.read_text()
        if any(name in text for name in ("torch.distributed", "DistributedDataParallel", "clip_grad_norm_")):
            found.append(path.name)
    assert found == ["parallel.py", "sharding.py"]


METHODS: list[Any] = ["ft", "ft+migu", "ft+random", {"name": "lora+migu", "tuning": "lora", "plugins": ["migu"]}]
# With one micro-batch on each worker, where masked gradients are never made: each on a family of its own
# (without dropout, which is drawn for each micro-batch: there are as many as workers)
ROW_SPARSE: list[Any] = [
    "ft+migu",
    {"name": "lora+migu", "tuning": {"name": "lora", "dropout": 0.0}, "plugins": ["migu"]},
    "replay+migu",
]
# With a penalty that counts, a cap on the samples that leaves the second worker fewer than the first, and so on
_SETTINGS = [
    {"name": "ewc", "strength": 1e3, "samples": 21},
    {"name": "mas", "samples": 21},
    {"name": "l2", "strength": 10.0},
    {"name": "lwf"},
    {"name": "replay", "fraction": 0.3, "allocation": "power"},
    {"name": "conpet", "rho": 1.5, "fraction": 0.5},
    # memories and draws that leave the second worker fewer examples than the first, or none
    {"name": "agem", "fraction": 0.3, "examples": 7, "margin": 1.0},
    {"name": "agem", "fraction": 0.05, "examples": 1},
    {"name": "derpp", "fraction": 0.3, "examples": 5},
    {"name": "merge", "rule": "opcm"},
    {"name": "fw_merging", "fraction": 0.3, "examples": 7, "steps": 3},
    {"name": "chat_vector", "instruct": "own"},
    {"name": "refresh", "delta": 1e-3, "samples": 21},
    {"name": "projection", "epsilon": 0.9, "samples": 21, "project_update": True},
    {"name": "projection", "epsilon": 0.9, "samples": 21, "sketch": 200},
    {"name": "cuber", "epsilon": 0.9, "samples": 21, "sufficient": 0.1, "correlated": -0.1},
    {"name": "das", "samples": 21},
    {"name": "migu", "importance": "gradient", "cluster": "comagnitude", "clusters": 8, "diagnostics": True},
    {"name": "graftllm"},
]
PLUGINS: list[Any] = [{"name": f"plugin-{i}", "tuning": "full", "plugins": [s]} for i, s in enumerate(_SETTINGS)]
# All other tuning methods, with what they share out or decompose; the plug-ins that mask rows where there are rows
ADAPTERS: list[Any] = [
    "inclora+migu",
    {"name": "olora", "tuning": {"name": "olora", "lambda2": 0.1}},
    {"name": "moelora+migu", "tuning": {"name": "moelora", "top_k": 2}, "plugins": ["migu"]},
    {"name": "mora+migu", "tuning": {"name": "mora", "r": 2, "top_k": 3, "temperature": 0.2}, "plugins": ["migu"]},
    {"name": "hat", "tuning": {"name": "hat", "r": 4, "s_max": 20.0}},
    {"name": "exssnet", "tuning": {"name": "exssnet", "r": 4, "density": 0.3}},
]
SUBSPACES: list[Any] = [
    {"name": "osf", "tuning": {"name": "osf", "project": True}},
    {"name": "coso", "tuning": {"name": "coso", "rank": 4, "sketch": 8}},
]
# A router's state is a sum over all workers' texts; its choice is then the same on each
ROUTED: list[Any] = [
    {"name": "epi", "tuning": {"name": "epi", "r": 2}},
    {"name": "mocl+migu", "tuning": {"name": "mocl", "r": 2, "samples": 21}, "plugins": ["migu"]},
    {"name": "sapt", "tuning": {"name": "sapt", "r": 2, "fraction": 0.3, "batch": 5}},
    {"name": "dynamic-conpet", "tuning": {"name": "dynamic_conpet", "r": 2, "fraction": 0.3}},
    {"name": "demix", "tuning": {"name": "demix", "smoothing": 1.0, "top_k": 2}},
]
PROMPTS: list[Any] = [
    {"name": "progprompt", "tuning": {"name": "progprompt", "mlp": 8}},
    {"name": "l2p", "tuning": {"name": "l2p", "picked": 2}},
    "nmc",
    "joint",
    "fetril",
]
HEADED: list[Any] = [{"name": "slca", "tuning": {"name": "slca", "samples": 6, "epochs": 2}}]
GENERATING: list[Any] = [
    {"name": "lfpt5", "tuning": {"name": "lfpt5", "tokens": 5, "samples": 4, "known_answers": False, "top_k": 2}}
]

# On corpora: a decoder predicts each token, an encoder those that a mask hides, drawn for each block and epoch
CORPORA: list[Any] = [
    "ft+migu",
    {"name": "replay", "tuning": "full", "plugins": [{"name": "replay", "fraction": 0.5}]},
    {"name": "ewc", "tuning": "full", "plugins": [{"name": "ewc", "strength": 1e3, "samples": 5}]},
]


def corpus_configs(out: Path) -> list[RunConfig]:
    """The methods of `CORPORA` on a decoder, and on an encoder whose masks are drawn in two epochs."""
    stream = {"name": "embedded-cpt", "first": 2, "max_train": 2, "max_test": 1}
    made = []
    for family, methods, epochs in (("tiny-llama", CORPORA[:2], 1), ("tiny-bert", CORPORA[1:], 2)):
        training = {"micro_batch": 2, "epochs": epochs}
        made.append(small_config(out, model=family, methods=methods, stream=stream, training=training))
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_one_and_two_workers_agree_on_corpora(tmp_path: Path) -> None:
    planned = [sequence for config in corpus_configs(tmp_path / "two") for sequence in plan(config)]

    def check(rank: int) -> None:
        for sequence in planned:
            run_sequence(sequence, parallel=Parallel.current(torch.device("cpu")))

    in_workers(check, 2, tmp_path)
    compared = []
    for config in corpus_configs(tmp_path / "one"):
        for sequence in plan(config):
            run_sequence(sequence)
            # two documents are more blocks than a global batch has
            compare(sequence, sequence.model_copy(update={"out": str(tmp_path / "two")}), 4)
            compared.append(sequence.method.label)
    assert len(compared) == 4


# Two states a task: the one that is scored, and the one that the next task starts from
ANNEALED: list[Any] = [
    {**method, "training": {"schedule": "infinite", "warmup": 0.1, "outer": "rsqrt"}}
    for method in ({"name": "ewc", "tuning": "full", "plugins": [_SETTINGS[0]]}, {"name": "lora", "tuning": "lora"})
]


def configs(out: Path, methods: list[Any] = METHODS, examples: int = 80) -> list[RunConfig]:
    """The plain methods on every family, and on T5 with dropout and accumulation, which then are equal on both sides.

    Of the other methods each on one family, in turns: what they share out among workers is not the family's.
    """
    made = []
    for number, family in enumerate(FAMILIES):
        chosen = methods if methods is METHODS else methods[number :: len(FAMILIES)]
        if methods is PROMPTS and family == "tiny-t5":
            chosen = [*chosen, *GENERATING]
        if methods is PROMPTS and family == "tiny-bert":
            chosen = [*chosen, *HEADED]
        stream: dict[str, Any] = {"max_train": examples}
        if methods is not METHODS:
            stream |= {"first": 3, "max_test": 2}
        training = {} if methods is ROW_SPARSE else {"micro_batch": 2}
        if chosen:
            made.append(small_config(out, model=family, methods=chosen, stream=stream, training=training))
    if methods is METHODS:
        model = made[0].model
        with_dropout = model.model_copy(update={"overrides": {**model.overrides, "dropout_rate": 0.2}})
        made.append(made[0].model_copy(update={"model": with_dropout}))
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("methods", "examples"),
    [
        (METHODS, 80),
        (ROW_SPARSE, 24),
        (ADAPTERS, 24),
        (SUBSPACES, 24),
        (ROUTED, 24),
        (PROMPTS, 24),
        (PLUGINS, 24),
        (ANNEALED, 24),
    ],
    ids=["plain", "row-sparse", "adapters", "subspaces", "routed", "prompts", "plugins", "annealed"],
)
def test_one_and_two_workers_agree(methods: list[Any], examples: int, tmp_path: Path) -> None:
    for config in configs(tmp_path / "one", methods, examples):
        for sequence in plan(config):
            run_sequence(sequence)
    run_workers(configs(tmp_path / "two", methods, examples), tmp_path)
    compared = set()
    for config in configs(tmp_path / "one", methods, examples):
        for sequence in plan(config):
            compare(
                sequence,
                sequence.model_copy(update={"out": str(tmp_path / "two")}),
                0 if sequence.method.label in ("nmc", "fetril") else len(sequence.tasks) * examples // 8,
            )
            compared.add(sequence.method.label)
    assert len(compared) >= len(methods)


def run_workers(
    configs: list[RunConfig], folder: Path, strategy: str = "ddp", until: int = 0, workers: int = 2
) -> None:
    """Run the sequences of configurations with several gloo workers, in float64."""
    file = folder / "configs.yaml"
    file.write_text(yaml.safe_dump([c.model_dump(mode="json") for c in configs]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    script = str(Path(__file__).with_name("two_workers.py"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [*command, script, str(file), strategy, str(until)]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-20000:]


def compare(one, two, steps: int) -> None:  # type: ignore[no-untyped-def]
    """Losses, weights and perplexities to the rounding of float64, all other scores exactly."""
    views = [read_view(s.out, s.id) for s in (one, two)]
    assert [v.start.workers for v in views if v.start] == [1, 2]
    losses = [losses_of(s.out, s.id) for s in (one, two)]
    assert len(losses[0]) == len(losses[1]) >= steps  # replay trains on more
    # AdamW divides a gradient by its own size, so where one is almost zero, rounding of 1e-16 grows, to 5e-9 in 50 steps
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-7, err_msg=one.id)
    if one.scorers[0] == "perplexity":
        np.testing.assert_allclose(views[1].matrix(), views[0].matrix(), rtol=1e-6)
    else:
        np.testing.assert_array_equal(views[1].matrix(), views[0].matrix())
    states = [Store(Path(s.out)).load(s.keys[-1]) for s in (one, two)]
    weights = [dict(state.weights) or next(iter(state.method.values())) for state in states]
    for name, w in weights[0].items():
        # in a form of the method's own (`name/part`) there are codes too, which are equal or not
        assert w.dtype == torch.float64 or "/" in name
        if name.endswith("key.bias"):
            continue  # softmax cancels it, so its gradient is rounding, which Adam and penalties blow up without effect
        # a thousandth of one step at this rate: a row masked on one side alone would differ by more
        torch.testing.assert_close(weights[1][name], w, rtol=1e-6, atol=1e-6, msg=f"{one.id}: {name}")
