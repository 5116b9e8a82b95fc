"""A corpus: its splits, its hash, and that no more of it is read than is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from streams import Corpus, EndTask, Example, Limits, SealedSplit, Stream, Task
from streams.corpora.corpus import Mixture, corpus

# every third text comes twice
TEXTS = [f"Text {number - number % 3 % 2}" for number in range(900)]


WITH_DEV = Limits(dev_fraction=0.2)
WITHOUT_DEV = Limits(dev_fraction=0)


def made(texts: list[str] = TEXTS, limits: Limits = WITH_DEV, **changes: object) -> Corpus:
    """A corpus of these texts alone."""
    return corpus("law", "made", {"train": lambda: texts}, limits, **changes)  # type: ignore[arg-type]


def test_each_document_is_in_one_split_and_equal_texts_share_it() -> None:
    task = made(test_fraction=0.1)
    splits = {split: list(task.documents(split)) for split in ("train", "dev", "test")}  # type: ignore[arg-type]
    assert sorted(splits["train"] + splits["dev"] + splits["test"]) == sorted(TEXTS)
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not set(splits[one]) & set(splits[other])
    # shares of 600 distinct texts: 10 % and 20 % of the rest, within three standard deviations
    assert abs(len(set(splits["test"])) - 60) < 3 * 54**0.5
    assert abs(len(set(splits["dev"])) - 108) < 3 * 87**0.5
    order = {text: place for place, text in reversed(list(enumerate(TEXTS)))}
    assert [order[text] for text in splits["train"]] == sorted(order[text] for text in splits["train"])


def test_which_split_it_is_depends_on_the_text_and_the_seed_alone() -> None:
    few = set(made(TEXTS[:300]).documents("test"))
    assert few == set(made().documents("test")) & set(TEXTS[:300])
    assert few != set(made(TEXTS[:300], Limits(dev_fraction=0.2, seed=1)).documents("test"))


def test_splits_of_their_own_take_nothing_from_train() -> None:
    parts = {"train": lambda: ["a", "b"], "test": lambda: ["c"], "dev": lambda: ["d"]}
    task = corpus("law", "made", parts, Limits(dev_fraction=0.9), test_fraction=0.9)  # type: ignore[arg-type]
    assert [list(task.documents(split)) for split in ("train", "dev", "test")] == [["a", "b"], ["d"], ["c"]]  # type: ignore[arg-type]
    assert task.has_dev


def test_limits_take_the_first_documents() -> None:
    whole = made()
    task = made(limits=Limits(max_train=5, max_dev=3, max_test=2, dev_fraction=0.2))
    for split, count in (("train", 5), ("dev", 3), ("test", 2)):
        assert list(task.documents(split)) == list(whole.documents(split))[:count]  # type: ignore[arg-type]
    skipping = made(["One!", "two", "three"], Limits(dev_fraction=0, skip_texts=frozenset({"one"})), test_fraction=0)
    assert list(skipping.documents("train")) == ["two", "three"]


def test_the_hash_is_that_of_all_documents_in_order() -> None:
    task = made(["ab", "ç"], WITHOUT_DEV, test_fraction=0)
    expected = hashlib.sha256(b"corpus\n" + bytes(7) + b"\x02ab" + bytes(7) + b"\x02\xc3\xa7").hexdigest()
    assert task.train_hash == expected
    contents = task.contents("train")
    assert (contents.num_documents, contents.num_bytes) == (2, 4)
    assert task.size("train") == 2
    others = [["ç", "ab"], ["a", "bç"], ["ab"]]
    for texts in others:
        assert made(texts, WITHOUT_DEV, test_fraction=0).train_hash != expected


def test_documents_are_streamed_and_hashed_once() -> None:
    read: list[str] = []

    def stream() -> Iterator[str]:
        for text in TEXTS:
            read.append(text)
            yield text

    task = corpus("law", "made", {"train": stream, "test": stream}, WITHOUT_DEV)
    assert next(task.documents("train")) == TEXTS[0]
    assert len(read) == 1
    read.clear()
    again = task.sharing(on_test_read=lambda task: None)
    assert task.train_hash == again.train_hash
    assert again.size("train") == len(TEXTS) == len(read)


def test_the_test_split_is_sealed_or_told_of() -> None:
    told = []
    task = made()
    sealed = Stream("s", (task,)).sealed().tasks[0]
    task.contents("test")
    for ask in (sealed.size, sealed.split_hash):
        with pytest.raises(SealedSplit):
            ask("test")
    assert isinstance(sealed, Corpus)
    with pytest.raises(SealedSplit):
        sealed.documents("test")
    watched = task.sharing(on_test_read=lambda task: told.append(task.name))
    watched.split_hash("train")
    assert told == []
    watched.split_hash("test")
    watched.size("test")
    assert told == ["law"]


def test_what_is_empty_or_no_example_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^task 'law': the train split is empty \(made\)$"):
        made([]).train_hash  # noqa: B018
    with pytest.raises(
        ValueError, match=r"^task 'law': the test split is empty: none .* 0\.001; give `test` files .*$"
    ):
        made(["a"], test_fraction=0.001).size("test")
    assert not made(["a"], Limits(dev_fraction=0.001)).has_dev
    with pytest.raises(ValueError, match=r"^task 'law' is a corpus: it has documents, and no examples with a label$"):
        made().read("train")


def test_documents_that_changed_are_noticed_when_they_are_read_again() -> None:
    texts = ["a", "b"]
    task = made(texts, WITHOUT_DEV, test_fraction=0)
    assert task.train_hash
    assert list(task.unchanged_documents("train")) == texts
    texts.append("c")
    with pytest.raises(
        ValueError, match=r"^task 'law': the train split has changed since it was planned with \(made\)$"
    ):
        list(task.unchanged_documents("train"))


def test_a_manifest_counts_documents() -> None:
    (described,) = Stream("s", (made(test_fraction=0.1),)).manifest()
    task = made(test_fraction=0.1)
    sizes = {split: len(list(task.documents(split))) for split in ("train", "dev", "test")}  # type: ignore[arg-type]
    assert described["sizes"] == sizes
    assert described["scorer"] == "perplexity"
    assert described["dropped_rows"] == {"train": 0, "test": 0}


def labelled(limits: Limits) -> Task:
    """A task whose labels alternate."""
    rows = [Example(f"text {number}", ["no", "yes"][number % 2]) for number in range(40)]
    return Task("law", "", "", ("no", "yes"), "made", {"train": rows, "test": rows[:6]}.__getitem__, limits)


def test_a_corpus_with_an_end_task_has_the_splits_of_that_one() -> None:
    end_task = EndTask(labelled(WITH_DEV), epochs=2, batch=4, lr=1e-3, weight_decay=0.0)
    task = made(end_task=end_task)
    # no document is held out for a perplexity that nobody asks for
    assert list(task.documents("train")) == TEXTS
    assert [task.size(split) for split in ("train", "dev", "test")] == [900, 8, 6]  # type: ignore[arg-type]
    assert task.has_dev
    assert task.scorer == "macro-f1"
    assert task.train_hash == made(limits=WITHOUT_DEV, test_fraction=0).train_hash
    hashes = {task.test_hash, task.split_hash("dev"), labelled(WITH_DEV).test_hash}
    hashes.add(made(end_task=replace(end_task, epochs=3)).test_hash)
    assert len(hashes) == 4
    assert replace(task, scorer="accuracy").answered.scorer == "accuracy"
    assert made().answered.scorer == "perplexity"


def test_the_test_split_of_an_end_task_is_sealed_and_told_of_as_the_corpus() -> None:
    told = []
    task = made(end_task=EndTask(labelled(WITH_DEV), 2, 4, 1e-3, 0.0))
    sealed = task.sharing(sealed=True)
    with pytest.raises(SealedSplit):
        sealed.split_hash("test")
    with pytest.raises(SealedSplit):
        sealed.answered.read("test")
    assert sealed.split_hash("dev") == task.split_hash("dev")
    watched = task.sharing(on_test_read=told.append)
    watched.answered.read("train")
    assert told == []
    watched.split_hash("test")
    watched.answered.read("test")
    assert told == [watched]


def test_a_corpus_may_come_again_and_is_never_cut() -> None:
    task = made()
    again = task.again("law@2")
    assert again.name == "law@2"
    assert again.train_hash == task.train_hash
    with pytest.raises(ValueError, match=r"^task 'law' is a corpus: no scenario that chooses among examples .*$"):
        task.part("law", lambda split, examples: examples)


def test_a_general_corpus_is_mixed_in_by_bytes_and_into_train_alone() -> None:
    own = [f"law {i} {'x' * (i % 7)}" for i in range(300)]
    general = [f"web {i} {'é' * (i % 5)}" for i in range(300)]
    task = made(own, mixture=Mixture(lambda: iter(general), 0.3))
    plain = made(own)
    mixed = list(task.documents("train"))
    assert [text for text in mixed if text.startswith("law")] == list(plain.documents("train"))
    guests = [text for text in mixed if text.startswith("web")]
    assert guests == general[: len(guests)]
    num_guest = sum(len(text.encode()) for text in guests)
    assert num_guest / sum(len(text.encode()) for text in mixed) == pytest.approx(0.3, abs=0.01)
    # all along, not behind the last of its own
    half = mixed[: len(mixed) // 2]
    assert 0.25 < sum(text.startswith("web") for text in half) / len(half) < 0.45
    for split in ("dev", "test"):
        assert list(task.documents(split)) == list(plain.documents(split))  # type: ignore[arg-type]
        assert task.split_hash(split) == plain.split_hash(split)  # type: ignore[arg-type]
    assert task.train_hash != plain.train_hash
    assert task.train_hash != made(own, mixture=Mixture(lambda: iter(general), 0.31)).train_hash
    skipping = made(
        own, replace(WITH_DEV, skip_texts=frozenset({"web 0"})), mixture=Mixture(lambda: iter(general), 0.3)
    )
    assert "web 0 " not in list(skipping.documents("train"))
    small = made(own, mixture=Mixture(lambda: iter(general[:3]), 0.3))
    with pytest.raises(ValueError, match="task 'law': mixture: the general corpus is too small: after all of its"):
        list(small.documents("train"))
