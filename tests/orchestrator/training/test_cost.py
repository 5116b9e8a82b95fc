"""What training costs, against numbers worked out by hand, and budgets that hold for every method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.csv_files import write_csv
from orchestrator.report.results import sequence_result
from orchestrator.report.tables import print_report
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import View
from orchestrator.training.cost import count_tokens, step_cost, task_steps
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.steps import losses_of, steps_of

# The small T5: width 32, 4 heads of 8, feed-forward 64, 2 + 2 layers
ATTENTION, FORWARD = 4 * 32 * 32, 2 * 32 * 64
ENCODER = 2 * (ATTENTION + FORWARD)
CROSS_KEYS_AND_VALUES = 2 * 2 * 32 * 32
DECODER = 2 * (2 * ATTENTION + FORWARD) - CROSS_KEYS_AND_VALUES
BATCH = [{"source": [5] * 7, "target": [6, 1]}, {"source": [5] * 3, "target": [6, 6, 1]}]


def vocabulary(learner: Learner) -> int:
    return len(learner.family.tokenizer)


def test_an_encoder_decoder_by_hand(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    cost = step_cost(learner, 0)
    source, target = ENCODER + CROSS_KEYS_AND_VALUES, DECODER + 32 * vocabulary(learner)
    assert (cost.source, cost.target) == (source, target)
    assert (cost.source_trained, cost.target_trained) == (source, target), "all of it trains"
    assert cost.flops(BATCH) == 6 * (10 * source + 5 * target)
    assert count_tokens(BATCH) == (10, 5)
    assert cost.tokens(BATCH) == 15


def test_a_decoder_by_hand(learner_of: Callable[..., Learner]) -> None:
    """Width 32, feed-forward 64 with a gate, 2 layers; every token passes all of it."""
    learner = learner_of(model="tiny-llama")
    cost = step_cost(learner, 0)
    size = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 32 * vocabulary(learner)
    assert (cost.source, cost.target) == (size, size)
    assert cost.flops(BATCH) == 6 * 15 * size


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-roberta"])
def test_an_encoder_by_hand(model: str, learner_of: Callable[..., Learner]) -> None:
    """Neither the pooler nor the head, whose size tells how many labels the stream will have."""
    texts = [{"source": [5] * 7, "label": 1}, {"source": [5] * 3, "label": 0}]
    for stream in ({}, {"first": 1}):
        cost = step_cost(learner_of(model=model, stream=stream), 0)
        assert cost.source == 2 * (4 * 32 * 32 + 2 * 32 * 64)
        assert cost.flops(texts) == 6 * 10 * cost.source


def test_frozen_weights_take_no_gradients(learner_of: Callable[..., Learner]) -> None:
    """LoRA of rank 8 on the queries and values of all attention: 2 in the encoder, 4 in the decoder."""
    learner = learner_of(methods=["lora"])
    cost = step_cost(learner, 0)
    adapter = 8 * (32 + 32)
    sources, targets = (2 * 2 + 2) * adapter, (2 * 2 + 2) * adapter  # the cross-attention's values read the input
    assert (cost.source_trained, cost.target_trained) == (sources, targets)
    source, target = ENCODER + CROSS_KEYS_AND_VALUES + sources, DECODER + 32 * vocabulary(learner) + targets
    assert (cost.source, cost.target) == (source, target)
    assert cost.flops(BATCH) == 4 * (10 * source + 5 * target) + 2 * (10 * sources + 5 * targets)


@pytest.mark.parametrize(
    ("method", "task_id", "added"),
    [
        ({"tuning": {"name": "progprompt", "tokens": 3}}, 1, 6),
        ({"tuning": {"name": "l2p", "tokens": 3, "picked": 2}}, 0, 6),
        ({"tuning": {"name": "lfpt5", "tokens": 9}}, 0, 9),
    ],
    ids=["progprompt", "l2p", "lfpt5"],
)
def test_soft_prompts_are_read_too(
    method: dict[str, Any], task_id: int, added: int, learner_of: Callable[..., Learner]
) -> None:
    """No matrix trains, so a step takes a forward pass, one backward, and what the method says."""
    cost = step_cost(learner_of(methods=[method]), task_id)
    assert (cost.source_trained, cost.target_trained) == (0, 0)
    forward = 2 * ((10 + 2 * added) * cost.source + 5 * cost.target)
    assert cost.flops(BATCH) == pytest.approx((2 + cost.passes.forward + 2 * cost.passes.training) * forward, abs=1)


def test_subspaces_count_as_what_they_move(learner_of: Callable[..., Learner]) -> None:
    """Every matrix of the blocks, though OSF makes the factors that it moves only when a task begins; not the output."""
    cost = step_cost(learner_of(methods=["osf"]), 0)
    assert (cost.source_trained, cost.target_trained) == (ENCODER + CROSS_KEYS_AND_VALUES, DECODER)


def test_what_no_token_reads_costs_nothing(learner_of: Callable[..., Learner]) -> None:
    """With three feed-forward blocks and the pretrained one in each place, the model costs what it did with one."""
    learner = learner_of(methods=["demix"])
    cost = step_cost(learner, 2)
    source, target = ENCODER + CROSS_KEYS_AND_VALUES, DECODER + 32 * vocabulary(learner)
    assert (cost.source, cost.target) == (source, target)
    assert (cost.source_trained, cost.target_trained) == (2 * FORWARD, 2 * FORWARD), (
        "the newest in each of 2 + 2 blocks"
    )


def test_a_methods_own_passes_count(learner_of: Callable[..., Learner]) -> None:
    plain = step_cost(learner_of(), 1)
    refreshed = step_cost(learner_of(methods=["refresh"]), 1)
    assert refreshed.flops(BATCH) == 2 * plain.flops(BATCH), "one more forward and backward pass over all weights"


def test_a_pass_of_a_methods_own_costs_what_trainings_does(learner_of: Callable[..., Learner]) -> None:
    def flops(tuning: Any, *plugins: Any, task: int = 1) -> int:
        return step_cost(learner_of(methods=[{"tuning": tuning, "plugins": list(plugins)}]), task).flops(BATCH)

    assert flops("lora", "refresh") == 2 * flops("lora"), "where little trains, little more is computed for it"
    forward = flops("lora", "lwf") - flops("lora")
    assert flops("full", "lwf") - flops("full") == pytest.approx(forward, rel=0.1)  # but for the adapters' own
    # 24 examples a task, half of them kept: 12 in the second task, 24 in the third, never more than asked for
    agem, derpp = {"name": "agem", "fraction": 0.5, "examples": 16}, {"name": "derpp", "fraction": 0.5, "examples": 16}
    assert [flops("full", agem, task=t) / flops("full") for t in (0, 1, 2)] == pytest.approx(
        [1, 1 + 12 / 8, 1 + 16 / 8]
    )
    assert flops("full", derpp) / flops("full") == pytest.approx(1 + 2 * 12 / 8)
    by_embeddings, by_states = ({"name": "l2p", "query": query} for query in ("embeddings", "states"))
    assert flops(by_embeddings) < flops(by_states)


@pytest.mark.parametrize(
    ("plugin", "first", "second"),
    [
        # 24 examples a task, half of them kept; 12 beside a batch of 8, for each of two terms
        ({"name": "derpp", "fraction": 0.5, "examples": 16}, 15, 15 * (1 + 2 * 12 / 8)),
        ({"name": "agem", "fraction": 0.5, "examples": 4}, 15, 15 * (1 + 4 / 8)),
        ({"name": "lwf"}, 15, 2 * 15),
        ({"name": "refresh"}, 2 * 15, 2 * 15),
        ({"name": "migu"}, 15, 15),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_what_a_method_reads_by_itself_are_tokens_too(
    plugin: dict[str, Any], first: float, second: float, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of(methods=[{"tuning": "full", "plugins": [plugin]}])
    assert step_cost(learner, 0).tokens(BATCH) == first
    assert step_cost(learner, 1).tokens(BATCH) == round(second)


def test_a_budget_of_tokens_counts_what_a_method_reads_by_itself(tmp_path: Path) -> None:
    """The teacher of `lwf` reads each batch again from the second task on: it has half of the steps there."""
    config = small_config(
        tmp_path, methods=["ft", "lwf"], stream={"first": 2}, training={"budget": {"tokens": 2000}, "global_batch": 4}
    )
    found = {s.method.label: run_sequence(s, evaluate=False) for s in plan(config)}
    steps = {label: [len(task.steps) for task in view.by_task.values()] for label, view in found.items()}
    assert steps["lwf"][0] == steps["ft"][0], "in the first task there is nothing to distil"
    assert steps["ft"][1] - 1 <= 2 * steps["lwf"][1] <= steps["ft"][1] + 2
    for view in found.values():
        for task in view.by_task.values():
            assert task.checkpoint
            assert 2000 <= task.checkpoint.usage["tokens"] < 2400


METHODS = ["ft", {"name": "replay", "tuning": "full", "plugins": [{"name": "replay", "fraction": 0.5}]}, "lora"]


def views(out: Path, **training: Any) -> dict[str, View]:
    sequences = plan(small_config(out, methods=METHODS, stream={"first": 2}, training=training))
    return {s.method.label: run_sequence(s, evaluate=False) for s in sequences}


def test_a_budget_of_steps_is_the_same_for_all_methods(tmp_path: Path) -> None:
    without = views(tmp_path / "without")
    assert len(without["replay"].by_task[1].steps) > len(without["ft"].by_task[1].steps)
    for budget in (2, 7):  # less than an epoch, and more than two
        found = views(tmp_path / str(budget), budget={"steps": budget})
        for view in found.values():
            assert [len(task.steps) for task in view.by_task.values()] == [budget] * 2
            assert [task.total_steps for task in view.by_task.values()] == [budget] * 2
            assert view.usage("steps") == 2 * budget


def test_epochs_go_on_as_they_would_without_a_budget(sequence_of: Callable[..., SequencePlan]) -> None:
    """Three steps an epoch: the first six of seven are those of two epochs."""
    losses = []
    for out, training in (("epochs", {"epochs": 2}), ("budget", {"budget": {"steps": 7}})):
        sequence = sequence_of(out, stream={"first": 1}, training=training)
        run_sequence(sequence, evaluate=False)
        losses.append(losses_of(sequence.out, sequence.id))
    assert losses[1][:6] == losses[0]
    assert len(losses[1]) == 7


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_the_fewest_steps_that_reach_a_budget(
    unit: str, sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    plain = run_sequence(sequence_of("plain", stream={"first": 1}, training={"epochs": 2}), evaluate=False)
    learner = learner_of(out="plain", stream={"first": 1})
    batches = learner.global_batches(0)
    cost = step_cost(learner, 0)
    count = cost.tokens if unit == "tokens" else cost.flops
    costs = [count(next(batches)) for _ in range(6)]
    assert plain.usage(unit) == sum(costs)
    four = sum(costs[:4])
    for amount, steps in ((four, 4), (four + 1, 5), (four - 1, 4), (1, 1)):
        sequence = sequence_of(f"{unit}-{amount}", stream={"first": 1}, training={"budget": {unit: amount}})
        view = run_sequence(sequence, evaluate=False)
        assert (len(view.by_task[0].steps), view.by_task[0].total_steps) == (steps, steps)
        assert view.usage(unit) == sum(costs[:steps])


def test_an_equal_budget_of_flops_gives_what_costs_less_more_steps(tmp_path: Path) -> None:
    found = views(tmp_path, budget={"flops": 2e8})
    steps = {label: view.usage("steps") for label, view in found.items()}
    assert steps["lora"] > steps["ft"] == steps["replay"]  # type: ignore[operator]
    for view in found.values():
        assert 4e8 <= view.usage("flops") < 1.25 * 4e8  # type: ignore[operator]


def test_the_rate_falls_over_the_steps_of_the_budget(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 1}, training={"schedule": "linear", "budget": {"steps": 5}})
    run_sequence(sequence, evaluate=False)
    rates = [step.lr for step in steps_of(sequence.out, sequence.id)]
    assert rates == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])


def test_the_cost_is_in_the_report_also_of_what_others_trained(tmp_path: Path) -> None:
    sequences = plan(small_config(tmp_path, methods=["ft", "ft+migu"], stream={"first": 2}))
    found = [sequence_result(s, run_sequence(s)) for s in sequences]
    learner = Learner(sequences[0], sequences[0].open_stream(), Parallel())
    learner.load_initial()
    each = [sum(sum(count_tokens(learner.features(t)[i : i + 1])) for i in range(24)) for t in range(2)]
    for result in found:
        assert (result["steps"], result["tokens"]) == (6, sum(each))
        assert result["flops"] > 0
    assert found[0]["flops"] == found[1]["flops"], "MIGU has no passes of its own"
    history = Store(tmp_path).history(sequences[1].keys[1])
    assert history["usage"] == {"steps": 3, "tokens": each[0], "flops": history["usage"]["flops"]}

    class Folder:
        folder = tmp_path

    head, line, *_ = write_csv(Folder, {"sequences": found}).read_text().splitlines()  # type: ignore[arg-type]
    assert dict(zip(head.split(","), line.split(","), strict=True))["tokens"] == str(sum(each))
    said = shown(found, 100)
    assert f"{found[0]['flops'] / 1e8:.1f}e8" in said
    assert "tokens" in said.splitlines()[2]
    assert max(map(len, said.splitlines())) <= 100
    assert "tokens" not in shown(found, 62).splitlines()[2], "what does not fit is left out, not broken up"


def shown(found: list[dict[str, Any]], width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        print_report({"experiment": "small", "sequences": found}, console)
    return captured.get()


def test_the_number_of_steps_is_known_before_the_first(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=METHODS[1:2], training={"budget": {"tokens": 2000}})
    before = {n: p.detach().clone() for n, p in learner.family.module.named_parameters()}
    counts = [task_steps(learner, t) for t in (0, 1, 1)]
    assert counts[1] == counts[2]
    assert all((p == before[n]).all() for n, p in learner.family.module.named_parameters())
