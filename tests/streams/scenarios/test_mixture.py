"""Guests in a task's train split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams import Limits, Stream
from streams.scenarios.mixture import Mixture
from tests.streams.scenarios.small import Asked, stream_of, task_of, uniform

A = task_of("a b", each=6, name="A")
B = task_of("x y z", each=20, name="B")


def mixed(**settings: Any) -> Stream:
    return Mixture.model_validate(settings).apply(stream_of(A, B))


def test_guests_of_another_task_are_asked_as_it_asks() -> None:
    stream = mixed(share=0.25, tasks=["B"], seed=1)
    host, alone = stream.tasks
    # 12 of its own and 4 guests are 25 %
    own, guests = host.read("train")[:12], host.read("train")[12:]
    assert own == A.read("train")
    assert len(guests) == 4
    drawn = sorted(B.read("train"), key=lambda e: uniform(1, "mixture", "A", B.prompt(e.text)))
    assert [(guest.text, guest.label) for guest in guests] == [(e.text, e.label) for e in drawn[:4]]
    for guest in guests:
        assert guest.prompt == B.prompt(guest.text)
    assert {example.prompt for example in own} == {None}
    # no task is its own guest
    assert alone.train_hash == B.train_hash
    assert host.labels == A.labels
    assert host.test_hash == A.test_hash
    assert isinstance(B.load, Asked) and "test" not in B.load.splits


def test_what_is_mixed_in_and_how_it_asks_are_part_of_the_content() -> None:
    hashes = {A.train_hash}
    for settings in ({"share": 0.25}, {"share": 0.3}, {"share": 0.25, "seed": 2}):
        hashes.add(mixed(tasks=["B"], **settings).tasks[0].train_hash)
    assert len(hashes) == 4
    again = mixed(share=0.25, tasks=["B"]).tasks[0]
    assert again.train_hash in hashes
    # the same rows, asked by a task of another name
    other = task_of("x y z", each=20, name="B")
    object.__setattr__(other, "shown_name", "C")
    asked = Mixture(share=0.25, tasks=("B",)).apply(stream_of(A, other)).tasks[0]
    assert asked.train_hash not in hashes


def test_a_general_stream_gives_guests_of_all_of_its_tasks() -> None:
    stream = mixed(share=0.5, general="embedded-tuning")
    host = stream.tasks[0]
    assert len(host.read("train")) == 24
    assert [task.name for task in host.guest_tasks] == ["verdicts", "shelves", "errands", "characters", "hints"]
    # what keeps rows out of the stream keeps them out of the guests, and no cap of its own does
    half = task_of("a b", each=6, limits=Limits(row_half=1, max_train=2, dev_fraction=0))
    (limited,) = Mixture(share=0.5, general={"name": "embedded-tuning"}).apply(stream_of(half)).tasks
    assert limited.guest_tasks[0].limits == Limits(row_half=1, dev_fraction=0)
    assert len(limited.read("train")) == 4


def test_a_general_stream_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_BENCHMARK_DIR", str(tmp_path))
    located = Mixture(share=0.5, general={"name": "order1"}).located()
    assert located.general is not None
    assert located.general["folder"] == str(tmp_path)
    assert located.general["tasks"] == ["dbpedia", "amazon", "yahoo", "agnews"]
    assert Mixture.model_validate(located.model_dump()) == located == located.located()
    alone = Mixture(share=0.5, tasks=("a",))
    assert alone.located() is alone


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"share": 0.5}, "give one of general, a stream that guests are of, and tasks of this stream"),
        ({"share": 0.5, "general": "embedded", "tasks": ["A"]}, "give one of general"),
        ({"share": 1, "tasks": ["A"]}, "less than 1"),
        ({"share": 0.5, "general": "embeded"}, "unknown stream 'embeded'. Did you mean 'embedded'"),
        ({"share": 0.5, "general": {"name": "embedded", "wrds": 1}}, "unknown key 'wrds'. Did you mean 'words'"),
        ({"share": 0.5, "general": {"words": "embedded"}}, "a stream needs a `name`"),
        ({"share": 0.5, "tasks": ["C"]}, "stream 's': scenario 'mixture': unknown task 'C'"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        mixed(**settings)


def test_more_guests_than_there_are_are_refused() -> None:
    host = mixed(share=0.9, tasks=["B"]).tasks[0]
    with pytest.raises(
        ValueError, match=r"a share of 0\.9 beside 12 examples of task 'A' takes 108 guests, and there are 60"
    ):
        host.read("train")
