"""What can be named in a configuration."""

from __future__ import annotations

from rich.console import Console

from methods import PRESETS, REFERENCE_RUNS
from orchestrator.listing import LISTINGS, methods, print_listing, scorers, streams
from streams import DESCRIPTIONS, SCENARIOS, SCORER_VERSIONS, named_stream


def test_every_row_of_a_listing_has_the_same_columns() -> None:
    rows = methods()
    assert len({tuple(sorted(row)) for row in rows}) == 1
    by_name = {(row["kind"], row["name"]): row for row in rows}
    assert {name for kind, name in by_name if kind == "preset"} == set(PRESETS)
    assert by_name["preset", "ties"]["what"] == "full + merge (rule ties, scale 1.0)"
    assert by_name["preset", "joint"]["what"] == f"full ({REFERENCE_RUNS['joint'].sentence})"
    assert by_name["preset", "ft"]["published"] == "lr 0.0001, global_batch 64"
    assert by_name["preset", "ewc"]["published"] == ""
    assert by_name["tuning method", "full"]["searched"] == "lr 1e-05 to 0.003 (default 0.001)"
    merged = by_name["plug-in", "merge"]["searched"]
    assert "weight 0.1 0.3 0.5 0.7 0.9 (rule ema); scale 0.3 0.5 1.0 (rule arithmetic, ties, dare)" in merged
    assert by_name["plug-in", "migu"]["searched"].startswith("ratio ")


def test_methods_are_listed_by_kind() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        print_listing("methods", console)
    text = captured.get()
    titles = ["tuning methods: one a method", "plug-ins: any number", "what a search tries", "presets;"]
    positions = [text.index(title) for title in titles]
    assert positions == sorted(positions)
    assert max(map(len, text.splitlines())) <= 100


def test_every_stream_is_listed_with_its_source_and_its_rows() -> None:
    by_name = {row["name"]: row for row in streams()}
    assert set(by_name) == set(DESCRIPTIONS)
    order1 = by_name["order1"]
    assert order1["source"] == "folder"
    # of dbpedia the published test file is known, of yahoo nothing
    assert order1["tasks"] == ["dbpedia", "amazon", "yahoo", "agnews"]
    assert (order1["train"], order1["test"]) == ([None, 5000, None, 4000], [7600, 7600, None, 7600])
    assert (by_name["trace"]["source"], sum(by_name["trace"]["train"])) == ("trace", 40_000)
    long = by_name["embedded-long"]
    assert (long["source"], len(long["tasks"]), set(long["train"])) == ("embedded", 15, {800})
    # of corpora they are documents
    assert (by_name["embedded-cpt"]["train"], by_name["embedded-cpt"]["test"]) == ([400] * 4, [60] * 4)
    assert by_name["embedded"]["test"] == [len(task.read("test")) for task in named_stream("embedded").tasks]


def test_streams_are_listed_with_their_totals() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        print_listing("streams", console)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 100
    rows = {tuple(line.split()[:2]): line for line in lines if line.strip()}
    assert "9,000 + ?" in rows["order1", "folder"] and "22,800 + ?" in rows["order1", "folder"]
    assert " 5 " in rows["embedded-tuning", "embedded"] and "4,000 " in rows["embedded-tuning", "embedded"]
    assert ("order1", "dbpedia") in rows


def test_scenarios_are_listed_with_what_they_need() -> None:
    by_name = {row["name"]: row for row in LISTINGS["scenarios"]()}
    assert set(by_name) == set(SCENARIOS)
    assert by_name["scole"]["arXiv"] == "2207.04543"
    assert by_name["recurrence"]["settings"] == "positions [law power] [alpha 1] [every 2] [seed 0]"
    assert by_name["mixture"]["settings"] == "share [general] [tasks] [seed 0]"
    assert by_name["reversed"]["settings"] == ""


def test_scorers_are_listed_with_their_unit_and_what_they_need() -> None:
    rows = {row["name"]: row for row in scorers()}
    assert list(rows) == list(SCORER_VERSIONS)
    assert all(row["what"] and "\n" not in row["what"] for row in rows.values())
    assert (rows["perplexity"]["better"], rows["perplexity"]["needs"]) == ("lower", "a model that writes")
    assert (rows["rouge-l"]["unit"], rows["rouge-l"]["needs"]) == ("%", "the package rouge-score")
    assert rows["macro-f1"]["needs"] == "a label set"
