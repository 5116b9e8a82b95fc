"""Streams in YAML: sources, prompts, scorers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_config
from orchestrator.config.stream import StreamConfig
from streams import EmbeddedSource, FolderSource, HubSource
from tests.orchestrator.config.refusal import refused


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ("{name: news, hub: some/set}", "needs a pinned `revision`"),
        ("{name: news, hub: some/set, revison: abc}", "revison"),
        ("{name: news}", "hub"),
    ],
)
def test_hub_tasks_are_checked(task: str, part: str) -> None:
    assert part in refused(f"streams=[{{name: mine, tasks: [{task}]}}]")


def test_a_hub_task_reads_and_writes() -> None:
    task = "{name: news, hub: some/set, revision: abc, text: [title, body]}"
    config = load_config(None, [f"streams=[{{name: mine, tasks: [{task}]}}]"])
    again = type(config).model_validate(config.model_dump(mode="json"))
    assert again == config
    source = config.streams[0].settings
    assert isinstance(source, HubSource)
    assert source.tasks[0].text == ("title", "body")


def stream_of(entry: str) -> StreamConfig:
    """The one stream of a configuration with this entry."""
    return load_config(None, [f"streams=[{entry}]"]).streams[0]


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ("embedded", EmbeddedSource(words="embedded")),
        ("{name: embedded-tuning, max_train: 9}", EmbeddedSource(words="embedded-tuning")),
        ("{name: quick, source: embedded, words: embedded-tuning}", EmbeddedSource(words="embedded-tuning")),
        ("{name: mine, folder: /data, tasks: [yelp]}", FolderSource(folder="/data", tasks=("yelp",))),
        ("{name: mine, source: folder, folder: /data, tasks: [yelp]}", FolderSource(folder="/data", tasks=("yelp",))),
    ],
)
def test_every_form_of_an_entry_reads_and_is_written_as_a_user_would(entry: str, source: Any) -> None:
    stream = stream_of(entry)
    assert stream.settings == source
    written = stream.model_dump(mode="json")
    assert "settings" not in written
    assert StreamConfig.model_validate(written) == stream


def test_a_source_of_ones_own_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lines.py").write_text(
        "from streams import Source\n\n\nclass Lines(Source):\n    lines: int = 3\n    folder: str = 'x'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    stream = stream_of("{name: mine, source: my_lines.Lines, lines: 5, max_train: 9}")
    assert stream.source == "my_lines.Lines"
    assert stream.settings.model_dump() == {"lines": 5, "folder": "x"}
    assert StreamConfig.model_validate(stream.model_dump(mode="json")) == stream
    message = refused("streams=[{name: mine, source: my_lines.Lines, line: 5}]")
    assert "streams.0: unknown key 'line'. Did you mean 'lines'?" in message


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("{name: embedded, max_trian: 3}", "unknown key 'max_trian'. Did you mean 'max_train'?"),
        ("{name: x, source: foldr}", "unknown source 'foldr'. Did you mean 'folder'?"),
        ("{name: x, folder: /data}", "a stream of your own needs `tasks` or a `source`"),
        ("{name: x, source: folder, folder: /data}", "streams.0.tasks: Field required"),
        ("{name: x, tasks: [a, {name: b}]}", "mixes folder tasks (names) and hub tasks (mappings)"),
        ("{max_train: 3}", "a stream needs a `name`"),
        ("{name: embedded, prompt: plane}", "streams.0.prompt: unknown prompt 'plane'. Did you mean 'plain'?"),
        ("{name: embedded, prompt: '{txt}'}", "streams.0.prompt: unknown field 'txt'. Did you mean 'text'?"),
        ("{name: embedded, prompt: {reviews: plane}}", "unknown prompt 'plane'"),
        ("{name: embedded, scorer: exact}", "streams.0.scorer: unknown scorer 'exact'. Did you mean 'exact-match'?"),
        ("{name: embedded, class_order: by-seed}", "class_order: 'by-seed' needs labels_per_task"),
        ("{name: embedded, class_order: 0}", "class_order: 0 needs labels_per_task"),
        (
            "{name: embedded, labels_per_task: 1}",
            "streams.0.labels_per_task: Input should be greater than or equal to 2",
        ),
        (
            "{name: embedded, labels_per_task: 2, class_order: -1}",
            "streams.0.class_order: -1 is none of listed, by-seed, or a number from 0",
        ),
        (
            "{name: x, tasks: [{name: n, hub: a/b, revision: c, text: []}]}",
            "tasks.0.text: expected a column's name, or a list of at least one",
        ),
        ("{name: embedded, scorer: {reviews: exact}}", "unknown scorer 'exact'"),
        ("{name: embedded, fuar: {updated: [reviews]}}", "streams.0.fuar.forgotten: Field required"),
        ("{name: embedded, fuar: {forgotten: [reviews]}}", "it needs tasks that are updated or acquired"),
        (
            "{name: embedded, fuar: {forgotten: [reviews], acquired: [riddles, reviews]}}",
            "streams.0.fuar: tasks: 'reviews' is given twice",
        ),
        (
            "{name: x, tasks: [{name: n, hub: a/b, revision: c, scorer: rouge}]}",
            "tasks.0.scorer: unknown scorer 'rouge'. Did you mean 'rouge-l'? Known: exact-match, verbatim",
        ),
        ("{name: embedded, scenario: scol}", "streams.0.scenario: unknown scenario 'scol'. Did you mean 'scole'?"),
        ("{name: embedded, scenario: {name: scole}}", "streams.0.scenario.positions: Field required"),
        ("{name: embedded, scenario: {name: scole, positions: 0}}", "streams.0.scenario.positions: Input should be"),
        ("{name: embedded, scenario: [reversed, {name: permuted, sed: 1}]}", "unknown key 'sed'. Did you mean 'seed'?"),
        ("{name: embedded, scenario: {name: subset, fraction: true}}", "scenario.fraction: found True where a number"),
        (
            "{name: embedded, scenario: {name: permuted, seed: by_seed}}",
            "seed: 'by_seed' is neither by-seed nor a number",
        ),
        (
            "{name: embedded, scenario: {name: permuted, seed: -1}}",
            "streams.0.scenario.seed: -1 is neither by-seed nor",
        ),
        ("{name: embedded, scenaro: reversed}", "unknown key 'scenaro'. Did you mean 'scenario'?"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said(entry: str, part: str) -> None:
    message = refused(f"streams=[{entry}]")
    assert part in message
    assert "more)" not in message, "one mistake is told once"


def test_a_prompt_is_chosen_for_all_tasks_or_by_name() -> None:
    published = stream_of("embedded").build()
    plain = stream_of("{name: embedded, prompt: plain}").build()
    one = stream_of("{name: embedded, prompt: {reviews: 'Read: {text}'}}").build()
    assert str(plain.tasks[1].prompt("A.")) == "A."
    assert str(one.tasks[0].prompt("A.")) == "Read: A."
    assert one.tasks[1].train_hash == published.tasks[1].train_hash
    assert one.tasks[0].train_hash != published.tasks[0].train_hash
    assert stream_of("{name: embedded, prompt: benchmark}").build().tasks[0].train_hash == published.tasks[0].train_hash


def test_a_prompt_for_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt: unknown task 'review'\. Did you mean 'reviews'"):
        stream_of("{name: embedded, prompt: {review: plain}}").build()


def test_the_order_of_classes_goes_by_the_seed_where_that_is_asked_for() -> None:
    config = stream_of("{name: embedded, only: riddles-2, labels_per_task: 2, class_order: by-seed}")
    by_seed = {config.for_seed(seed).build().tasks[0].labels for seed in range(9)}
    # 6 pairs of the 4 labels can come second
    assert len(by_seed) > 3
    assert config.for_seed(3) == stream_of("{name: embedded, only: riddles-2, labels_per_task: 2, class_order: 3}")
    with pytest.raises(ValueError, match="class_order: 'by-seed' needs the seed of a run"):
        config.build()
    listed = stream_of("{name: embedded, labels_per_task: 2}")
    assert listed.for_seed(3) is listed
    assert listed.build().task_names[:4] == ("reviews-1", "headlines-1", "headlines-2", "requests-1")
    assert listed.build().tasks[2].labels == ("science", "politics")


def test_a_task_of_the_hub_names_its_scorer_where_the_stream_does_not(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [json.dumps({"title": f"T{i}", "text": f"{split} {i}", "label": i % 2}) for i in range(6)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    tasks = [{"name": "open", "hub": str(tmp_path), "label": "title", "labels": [], "scorer": "rouge-l"}]
    tasks.append({"name": "closed", "hub": str(tmp_path), "labels": ["zero", "one"]})
    entry = {"name": "mine", "tasks": tasks}
    built = StreamConfig.model_validate(entry).build()
    assert [task.scorer for task in built.tasks] == ["rouge-l", "exact-match"]
    built = StreamConfig.model_validate({**entry, "scorer": {"open": "sari"}}).build()
    assert [task.scorer for task in built.tasks] == ["sari", "exact-match"]
    with pytest.raises(ValueError, match="task 'open' has no label set, which the scorer 'macro-f1' needs"):
        StreamConfig.model_validate({**entry, "scorer": "macro-f1"}).build()


def test_the_tasks_of_fuar_are_those_that_are_trained() -> None:
    entry = "{name: embedded, first: 3, fuar: {forgotten: [reviews], acquired: [requests]}}"
    stream = stream_of(entry)
    assert stream.build().task_names == ("reviews", "headlines", "requests")
    assert StreamConfig.model_validate(stream.model_dump(mode="json")) == stream
    with pytest.raises(ValueError, match=r"stream 'embedded': fuar: unknown task 'request'\. Did you mean 'requests'"):
        stream_of(entry.replace("requests", "request")).build()
    with pytest.raises(ValueError, match="fuar: unknown task 'riddles'"):
        stream_of(entry.replace("requests", "riddles")).build()
    assert "fuar" not in stream_of("embedded").model_dump(mode="json"), "what was saved without it stays what it is"


def test_a_corpus_is_asked_nothing_and_scored_by_its_likelihood() -> None:
    for setting, message in (
        ({"prompt": "plain"}, "stream 'embedded-cpt': prompt: task 'karst' is a corpus, of which nothing is asked"),
        (
            {"scorer": "exact-match"},
            "stream 'embedded-cpt': scorer: 'exact-match': task 'karst' is a corpus; allowed: perplexity, bits-per-byte",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            StreamConfig.model_validate({"name": "embedded-cpt", **setting}).build()
    stream = StreamConfig.model_validate({"name": "embedded-cpt", "scorer": {"karst": "bits-per-byte"}}).build()
    assert [task.scorer for task in stream.tasks] == ["bits-per-byte", "perplexity", "perplexity", "perplexity"]


def test_files_of_a_corpus_are_given_in_full() -> None:
    entry = {"name": "mine", "source": "corpus", "tasks": [{"name": "law", "train": "law/*.txt"}]}
    located = StreamConfig.model_validate(entry).located()
    assert located.model_dump()["tasks"][0]["train"] == (str(Path.cwd() / "law" / "*.txt"),)
    # as a saved configuration is read again
    assert StreamConfig.model_validate(located.model_dump()) == located


@pytest.mark.parametrize(
    "scenario",
    ["reversed", "{name: subset, fraction: 0.5}", "[permuted, {name: mixture, share: 0.2, general: embedded-tuning}]"],
)
def test_a_scenario_reads_and_is_written_as_a_user_would(scenario: str) -> None:
    stream = stream_of(f"{{name: embedded, scenario: {scenario}}}")
    for same in (stream, stream.located()):
        assert StreamConfig.model_validate(same.model_dump(mode="json")) == same
        assert StreamConfig.model_validate_json(same.model_dump_json()) == same
        assert [task.train_hash for task in same.build().tasks] == [task.train_hash for task in stream.build().tasks]
    assert [scenario.name for scenario in stream.located().scenario] == [scenario.name for scenario in stream.scenario]


def test_without_a_scenario_a_stream_is_written_as_before() -> None:
    assert "scenario" not in stream_of("embedded").model_dump(mode="json")
    assert stream_of("{name: embedded, scenario: null}") == stream_of("embedded")


def test_scenarios_come_one_after_the_other_before_the_first_tasks_are_taken() -> None:
    assert stream_of("{name: embedded, first: 2, scenario: reversed}").build().task_names == ("riddles", "feelings")
    several = "[{name: order, tasks: [reviews, riddles, reviews]}, reversed]"
    assert stream_of(f"{{name: embedded, scenario: {several}}}").build().task_names == (
        "reviews@2",
        "riddles",
        "reviews",
    )
    alone = stream_of(f"{{name: embedded, only: reviews@2, scenario: {several}}}").build()
    assert alone.task_names == ("reviews@2",)
    # prompts and labels are those of the tasks that the source has
    parts = stream_of("{name: embedded, prompt: {riddles: plain}, labels_per_task: 2, scenario: reversed}").build()
    assert parts.task_names[:2] == ("riddles-2", "riddles-1")
    assert str(parts.tasks[0].prompt("A.")) == "A."


def test_what_a_scenario_draws_goes_by_the_seed_where_that_is_asked_for() -> None:
    config = stream_of("{name: embedded, scenario: [{name: permuted, seed: by-seed}, {name: subset, fraction: 0.5}]}")
    assert len({config.for_seed(seed).build().task_names for seed in range(9)}) > 6
    three = config.for_seed(3)
    assert three == stream_of("{name: embedded, scenario: [{name: permuted, seed: 3}, {name: subset, fraction: 0.5}]}")
    assert three.for_seed(4) is three
    with pytest.raises(
        ValueError, match="stream 'embedded': scenario 'permuted': seed: 'by-seed' needs the seed of a run"
    ):
        config.build()
