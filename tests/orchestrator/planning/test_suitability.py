"""What does not go together is refused: data, models and methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.search.definition import prepare
from tests.conftest import small_config


def open_folder(folder: Path, labels: str = "[]", label: str = "answer {i}", seen: int = 0) -> str:
    """A folder with one task, of open answers unless labels are given; of 20 test texts `seen` are in train."""
    task = folder / "QA" / "capitals"
    task.mkdir(parents=True)
    for split, first in (("train", 0), ("test", 20 - seen)):
        rows = [{"sentence": f"word {i}", "label": label.format(i=i)} for i in range(first, first + 20)]
        (task / f"{split}.json").write_text(json.dumps(rows))
    (task / "labels.json").write_text(labels)
    return str(folder)


def plan_open(folder: Path, out: Path, **changes: Any) -> None:
    streams = [{"name": "mine", "folder": open_folder(folder), "tasks": ["capitals"]}]
    plan(small_config(out, streams=streams, **changes))


def test_open_answers_need_a_model_that_generates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task 'capitals' has no label set, and 'tiny-bert' is an encoder"):
        plan_open(tmp_path / "data", tmp_path / "out", model="tiny-bert")
    plan_open(tmp_path / "more", tmp_path / "out", methods=["ft", "zero-shot"])


def test_open_answers_need_a_method_that_generates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no label set, and method 'nmc' answers with one of the labels"):
        plan_open(tmp_path / "data", tmp_path / "out", methods=["nmc"])


@pytest.mark.parametrize("scorer", ["perplexity", "bits-per-byte"])
def test_likelihoods_are_refused_where_no_text_is_written(scorer: str, tmp_path: Path) -> None:
    stream = {"name": "embedded", "scorer": {"headlines": scorer}}
    with pytest.raises(UserError, match=f"task 'headlines': the scorer '{scorer}' asks .* 'tiny-bert' is an encoder"):
        plan(small_config(tmp_path, model="tiny-bert", streams=[stream], methods=["ft"]))
    with pytest.raises(UserError, match=f"the scorer '{scorer}' asks .* method 'nmc' compares embeddings of labels"):
        plan(small_config(tmp_path, streams=[stream], methods=["ft", "nmc"]))
    (sequence,) = plan(small_config(tmp_path, streams=[stream], methods=["ft"]))
    assert sequence.scorers == ("exact-match", scorer, *["exact-match"] * 3)


def test_guests_of_labels_that_nobody_has_met_need_a_model_that_generates(tmp_path: Path) -> None:
    def plan_mixed(model: str, methods: list[str], **guests: Any) -> None:
        scenario = {"name": "mixture", "share": 0.2, **guests}
        plan(small_config(tmp_path, model=model, methods=methods, stream={"scenario": scenario, "first": 2}))

    plan_mixed("tiny-t5", ["ft"], general="embedded-tuning")
    with pytest.raises(UserError) as caught:
        plan_mixed("tiny-bert", ["ft"], general="embedded-tuning")
    assert str(caught.value) == (
        "stream 'embedded': task 'reviews' has guests of task 'verdicts', whose label 'approve' no task has brought by "
        "then, and 'tiny-bert' is an encoder, which answers with one of the labels"
    )
    with pytest.raises(UserError, match="and method 'nmc' answers with one of the labels"):
        plan_mixed("tiny-t5", ["nmc"], general="embedded-tuning")
    # those of an earlier task are known, and those of a later one are not yet
    plan_mixed("tiny-bert", ["ft"], tasks=["reviews"])
    with pytest.raises(UserError, match="task 'reviews' has guests of task 'headlines', whose label 'sport' no task"):
        plan_mixed("tiny-bert", ["ft"], tasks=["headlines"])


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_open_answers_cannot_be_chosen(scoring: str, tmp_path: Path) -> None:
    message = f"task 'capitals' has no label set, and model.scoring: {scoring} chooses among labels; allowed: generate"
    with pytest.raises(UserError, match=message):
        plan_open(tmp_path / "data", tmp_path / "out", scoring=scoring)
    streams = [
        {"name": "mine", "folder": open_folder(tmp_path / "more"), "tasks": ["capitals"], "scorer": "perplexity"}
    ]
    plan(small_config(tmp_path / "out", streams=streams, scoring=scoring))


def test_programs_are_run_where_a_user_says_so(tmp_path: Path) -> None:
    streams = [{"name": "mine", "folder": open_folder(tmp_path / "data"), "tasks": ["capitals"], "scorer": "pass@1"}]
    with pytest.raises(UserError, match=r"runs programs that the model writes: evaluation\.run_code: true allows it"):
        plan(small_config(tmp_path, streams=streams))
    allowed: dict[str, Any] = {"evaluation": {"run_code": True}}
    (sequence,) = plan(small_config(tmp_path, streams=streams, **allowed))
    assert sequence.scorers == ("pass@1",)
    with pytest.raises(UserError, match="its answers are open, so give `labels: \\[\\]`"):
        plan(small_config(tmp_path, stream={"scorer": "pass@1"}, **allowed))
    tuning = {"streams": [{**streams[0], "name": "tuning", "dev_fraction": 0.5}], "holdout": "none"}
    with pytest.raises(UserError, match="a search cannot tune on it"):
        prepare(small_config(tmp_path, search={**tuning, "trials": 1}, **allowed), gpu=False)


def test_corpora_have_no_scores_amid_training(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": "tiny-llama", "streams": [{"name": "embedded-cpt", "max_train": 9}]}
    plan(small_config(tmp_path, **changes))
    with pytest.raises(UserError, match=r"evaluation\.during: task 'karst' of stream 'embedded-cpt' is a corpus"):
        plan(small_config(tmp_path, **changes, evaluation={"during": {"every": 5}}))


def test_end_tasks_need_the_whole_model(tmp_path: Path) -> None:
    (tmp_path / "law.txt").write_text("".join(f"a court of law {i}\n" for i in range(40)))
    rows = "".join(f'{{"text": "law {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(8))
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows.replace("law", split))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    task = {"name": "law", "train": str(tmp_path / "law.txt"), "end_task": files}
    streams = [{"name": "corpora", "source": "corpus", "tasks": [task], "dev_fraction": 0}]
    changes: dict[str, Any] = {"model": "tiny-bert", "streams": streams}
    plan(small_config(tmp_path / "out", **changes))
    with pytest.raises(UserError, match="task 'law': an end_task fine-tunes copies of the whole model, which scaling"):
        plan(small_config(tmp_path / "out", **changes, scaling={"workers": 2, "strategy": "fsdp"}))
