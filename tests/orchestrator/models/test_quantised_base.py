"""A frozen base in 8 and 4 bits under what trains beside it: what is rounded, what is stored, and that nothing else moves."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from methods import METHODS, TuningMethod, trainable
from methods.shared.quantised import QuantisedLinear
from orchestrator.dry_run import estimate
from orchestrator.errors import UserError
from orchestrator.models.blocks import quantise_frozen
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.cost import step_cost
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES, small_config
from tests.gloo import in_workers
from tests.orchestrator.models.architectures import save_model
from tests.orchestrator.planning.test_door import on
from tests.orchestrator.training.helpers import equal, stored
from tests.steps import losses_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

MakeLearner = Callable[..., Learner]
MakeSequence = Callable[..., SequencePlan]

# Linear layers of the small models' blocks: attention (T5's decoder has two) and feed-forward, in 2 blocks each
NUM_LINEARS = {"tiny-t5": 2 * 6 + 2 * 10, "tiny-bert": 2 * 6, "tiny-llama": 2 * 7}


def quantised_layers(model: nn.Module) -> list[QuantisedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantisedLinear)]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("model", FAMILIES)
def test_all_linear_layers_of_the_blocks_are_codes_and_the_adapters_train(
    model: str, kind: str, precision: str, learner_of: MakeLearner
) -> None:
    learner = learner_of(model=model, methods=["lora"], base=kind, precision=precision, stream={"first": 1})
    module = learner.family.module
    layers = quantised_layers(module)
    assert len(layers) == NUM_LINEARS[model]
    codes = {id(parameter) for layer in layers for parameter in (layer.weight,)}
    before = {}
    for name, parameter in module.named_parameters():
        # embeddings, norms, adapters and a head stay in float32
        assert parameter.dtype == (torch.int8 if id(parameter) in codes else torch.float32), name
        before[name] = parameter.detach().clone()
    train_task(learner, 0, lambda event: None)
    moved = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and moved <= set(trainable(module))


def test_the_rounded_base_is_near_the_exact_one(learner_of: MakeLearner) -> None:
    """And nearer with 8 bits than with 4: the loss of the same texts before training."""
    losses = {}
    for base in ("float32", "int8", "nf4"):
        learner = learner_of(model="tiny-llama", methods=["lora"], base=base)
        module = learner.family.module.eval()
        batch = learner.make_batch(learner.features(0)[:8], 1)
        with torch.no_grad():
            losses[base] = learner.forward(module, batch)[1]
    far = (losses["nf4"] - losses["float32"]).abs().max()
    near = (losses["int8"] - losses["float32"]).abs().max()
    assert 0 < 5 * near < far < losses["float32"].abs().max()


def own_tuning_methods() -> list[str]:
    return [name for name, kind in METHODS.items() if issubclass(kind, TuningMethod)]


FREEZE_NOTHING = ("full", "slca", "demix", "osf")


@pytest.mark.parametrize("name", own_tuning_methods())
def test_every_tuning_method_works_on_it_or_says_why_not(name: str, learner_of: MakeLearner) -> None:
    card = METHODS[name].card
    settings = {"name": name, **card.quick}
    changes: dict[str, Any] = {"methods": [{"tuning": settings}], "base": "nf4", "stream": {"first": 1, "max_train": 8}}
    if card.requires_head:
        changes["model"] = "tiny-bert"
    if card.not_quantised:
        with pytest.raises(
            ValueError, match=f"model.base: 'nf4' cannot be combined with '{name}': {card.not_quantised}"
        ):
            learner_of(**changes)
        return
    if name in FREEZE_NOTHING[:2]:
        with pytest.raises(
            UserError, match=r"model\.base: 'nf4' is for linear layers that the tuning method freezes, and"
        ):
            learner_of(**changes)
        return
    learner = learner_of(**changes)
    assert quantised_layers(learner.family.module)
    train_task(learner, 0, lambda event: None)
    for weight in learner.weights().values():
        assert weight.dtype == torch.float32


# the others freeze nothing, or train parts of what they froze
@pytest.mark.parametrize("name", sorted({*own_tuning_methods()} - {*FREEZE_NOTHING}))
def test_what_grows_beside_a_base_of_half_precision_is_float32(name: str, learner_of: MakeLearner) -> None:
    card = METHODS[name].card
    settings = {"name": name, **card.quick}
    changes: dict[str, Any] = {"base": "bf16", "precision": "bf16", "stream": {"first": 2, "max_train": 8}}
    if card.requires_head:
        changes["model"] = "tiny-bert"
    learner = learner_of(methods=[{"tuning": settings}], **changes)
    for task_id in (0, 1):
        train_task(learner, task_id, lambda event: None)
        for weight_name, weight in learner.weights().items():
            assert weight.dtype == torch.float32, weight_name


def test_a_plugin_that_writes_base_weights_is_refused(learner_of: MakeLearner) -> None:
    method = {"tuning": "lora", "plugins": [{"name": "chat_vector", "instruct": "own"}]}
    with pytest.raises(
        ValueError, match=r"model\.base: 'int8' cannot be combined with 'chat_vector': it adds a difference"
    ):
        learner_of(methods=[method], base="int8")
    learner_of(methods=[method])


def test_what_trains_nothing_and_freezes_nothing_is_refused_before_it_starts(sequence_of: MakeSequence) -> None:
    with pytest.raises(UserError, match=r"'zero-shot' on model 'tiny-t5': model\.base: 'nf4' is for linear layers"):
        sequence_of(methods=["zero-shot"], base="nf4")
    sequence_of(methods=["nmc"], base="nf4")


def test_workers_that_share_a_model_are_refused(sequence_of: MakeSequence) -> None:
    changes: dict[str, Any] = {"methods": ["lora"], "base": "nf4"}
    for strategy in ("fsdp", "hsdp"):
        with pytest.raises(
            ValueError, match=f"model.base: 'nf4' cannot be combined with scaling.strategy: '{strategy}'"
        ):
            sequence_of(**changes, scaling={"workers": 2, "strategy": strategy})
        # a single worker has the whole model
        sequence_of(**changes, scaling={"workers": 1, "strategy": strategy})
    sequence_of(**changes, scaling={"workers": 2})


def test_layers_outside_the_blocks_and_frozen_in_none() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)]), "head": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match="there is none"):
        quantise_frozen(model, "nf4")
    model.requires_grad_(False)
    quantise_frozen(model, "nf4")
    assert isinstance(model["blocks"][0], QuantisedLinear)  # type: ignore[index]
    assert type(model["head"]) is nn.Linear


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_stopped_and_resumed_is_never_stopped_and_the_adapters_are_the_state(
    kind: str, sequence_of: MakeSequence
) -> None:
    """The base is made again from the model, never stored; two runs are equal bit for bit."""
    changes: dict[str, Any] = {"methods": ["inclora"], "base": kind, "stream": {"first": 2, "max_test": 4}}
    whole, stopped = (sequence_of(out, **changes) for out in ("whole", "stopped"))
    matrix = run_sequence(whole).matrix()
    run_sequence(stopped, until=1)
    assert (run_sequence(stopped).matrix() == matrix).all()
    for tasks_seen in (1, 2):
        state = stored(whole, tasks_seen)
        assert equal(state.weights, stored(stopped, tasks_seen).weights)
        assert len(state.weights) == 6 * 2 * 2 * tasks_seen, "A and B of query and value in 6 attentions, for each task"
        for name, weight in state.weights.items():
            assert ".lora_" in name and weight.dtype == torch.float32


def test_each_base_has_keys_of_its_own(sequence_of: MakeSequence) -> None:
    """Adapters that were trained on one say nothing on another, nor do scores before training."""
    known: set[str] = set()
    for base in ("float32", "bf16", "int8", "nf4"):
        keys = sequence_of(methods=["lora"], base=base, precision="bf16").keys
        assert not known & set(keys)
        known |= set(keys)


def test_two_workers_give_what_one_gives(sequence_of: MakeSequence, tmp_path: Path) -> None:
    lora = {"tuning": {"name": "lora", "dropout": 0.0}}
    changes: dict[str, Any] = {"methods": [lora], "base": "nf4", "stream": {"first": 2, "max_test": 2}}
    one, two = (sequence_of(out, **changes) for out in ("one", "two"))
    run_sequence(one)

    def work(rank: int) -> None:
        run_sequence(two, parallel=Parallel.current(torch.device("cpu")))

    in_workers(work, 2, tmp_path)
    assert losses_of(two.out, two.id) == pytest.approx(losses_of(one.out, one.id), rel=1e-5)
    ends = [Store(Path(sequence.out)).load(sequence.keys[-1]).weights for sequence in (one, two)]
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_steps_cost_what_they_cost_on_the_exact_base(learner_of: MakeLearner) -> None:
    """A product has as many multiplications, however its weight is kept."""
    for model in FAMILIES:
        exact, *rounded = (learner_of(model=model, methods=["lora"], base=base) for base in ("float32", "int8", "nf4"))
        for learner in rounded:
            assert step_cost(learner, 0) == step_cost(exact, 0)


def test_a_plan_counts_its_memory_by_hand(tmp_path: Path) -> None:
    """A byte for each weight of the blocks or half of one, and 4 for each scale: of a row, or of 64 entries."""
    planned = {}
    for base in ("float32", "int8", "nf4"):
        config = small_config(tmp_path, model="tiny-llama", methods=["lora"], base=base, stream={"first": 1})
        (total,) = estimate(config, Console(quiet=True), gpu=False)
        planned[base] = total.memory_bytes
    # 2 blocks of width 32: 4 layers of attention, 3 of 64 hidden units
    weights = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    rows = 2 * (4 * 32 + 2 * 64 + 32)
    assert planned["float32"] - planned["int8"] == 3 * weights - 4 * rows
    assert planned["float32"] - planned["nf4"] == 3.5 * weights - 4 * weights // 64


@pytest.mark.slow
def test_nothing_is_said_by_the_packages(tmp_path: Path) -> None:
    """bitsandbytes names kernels that it could have, when peft imports it; transformers and peft warn of this and that."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from orchestrator.planning.planner import plan\n"
        "from orchestrator.training.sequence import run_sequence\n"
        "from tests.conftest import small_config\n"
        "(sequence,) = plan(small_config(Path(sys.argv[1]), methods=['inclora'], base='nf4', stream={'first': 1}))\n"
        "run_sequence(sequence)\n"
    )
    # a script has its own folder on the path, and not ours
    with_tests = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, script, tmp_path / "out"], env=with_tests, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_in_a_folder_is_rounded_to_the_codes_of_its_files(learner_of: MakeLearner, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    folder = save_model(tmp_path / "llama", "LlamaForCausalLM", model_type="llama", intermediate_size=48, **sizes)
    saved: Tensor = load_file(tmp_path / "llama" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    (sequence,) = plan(on(folder, tmp_path, methods=["lora"], reading={"base": "int8"}))
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load_initial()
    layer: Any = learner.family.module.get_submodule("model.layers.0.mlp.up_proj")
    steps = saved.abs().amax(1, keepdim=True) / 127
    # half a step, and the rounding to float16 before it: 127 steps of 11 bits
    assert bool(((layer.weight * steps - saved).abs() <= (0.5 + 127 / 2**11) * steps).all())
    torch.testing.assert_close(layer.scale, 127 * steps[:, 0], rtol=1e-3, atol=0)
