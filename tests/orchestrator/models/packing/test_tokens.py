"""Packed corpora: what is in the file is what plain concatenation gives, cut into blocks, whoever packed it."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.model import ModelConfig
from orchestrator.models.loading import load_tokenizer
from orchestrator.models.packing import tokens as packing
from orchestrator.models.packing.tokens import Packer, cache_folder
from orchestrator.models.source import ModelSource
from tests.gloo import in_workers

BUILT_IN = ModelSource("decoder", False, "", None, None)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_PACKED_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(BUILT_IN, ModelConfig(name="tiny-llama"))


def texts_of(seed: int) -> list[str]:
    """Documents of very different lengths, with letters that have no token, and one that is a single token."""
    rng = random.Random(seed)
    texts = ["the"]
    for _ in range(rng.randint(1, 30)):
        texts.append("".join(rng.choices("ab é\n✓,the ", k=rng.choice([1, 3, 20, 200]))) + "x")
    return texts


@pytest.mark.parametrize("seed", range(8))
def test_no_token_is_lost_and_none_is_in_two_blocks(seed: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # batches end between documents, wherever that is
    monkeypatch.setattr(packing, "BATCH_LETTERS", 50)
    texts = texts_of(seed)
    naive: list[int] = []
    for text in texts:
        naive += [*tokenizer(text, add_special_tokens=False).input_ids, 2]
    for length in (1, 2, 7, 64, len(naive), len(naive) + 1):
        packed = Packer(tokenizer, 2, length).packed(f"texts {seed}", lambda: texts)
        blocks = [packed.block(index).tolist() for index in range(len(packed))]
        assert blocks == [naive[first : first + length] for first in range(0, len(naive), length)]
        assert [packed.before(index) for index in range(len(packed))] == [None, *(block[-1] for block in blocks[:-1])]
        assert packed.block_bytes.sum() == sum(len(text.encode()) for text in texts)
        assert packed.block_bytes.tolist() == plain_bytes(texts, tokenizer, length)


def plain_bytes(texts: list[str], tokenizer: Any, length: int) -> list[int]:
    """For each block the bytes up to its end less those before: of a document, whole bytes in proportion to its tokens."""
    up_to = [0]
    for text in texts:
        num_tokens = len(tokenizer(text, add_special_tokens=False).input_ids)
        begin = up_to[-1]
        for token in range(1, num_tokens + 1):
            up_to.append(begin + len(text.encode()) * token // num_tokens)
        # the end has no byte
        up_to.append(up_to[-1])
    cuts = [*range(0, len(up_to) - 1, length), len(up_to) - 1]
    return [up_to[after] - up_to[before] for before, after in itertools.pairwise(cuts)]


def test_what_is_packed_is_found_again_and_lies_in_a_mapped_file(tokenizer: Any) -> None:
    read = []

    def documents() -> Iterator[str]:
        for text in ("the one", "the other"):
            read.append(text)
            yield text

    packer = Packer(tokenizer, 2, 4)
    first = packer.packed("content", documents)
    again = Packer(tokenizer, 2, 4).packed("content", documents)
    assert read == ["the one", "the other"]
    assert first == again
    assert isinstance(first.ids, np.memmap)
    assert not first.ids.flags.writeable
    # the tokenizer has fewer than 65,536 tokens
    assert first.ids.dtype == np.uint16


def test_other_content_tokens_or_lengths_are_other_files(tokenizer: Any) -> None:
    keys = set()
    for content, end, length in (("a", 2, 4), ("b", 2, 4), ("a", 1, 4), ("a", 2, 5)):
        keys.add(Packer(tokenizer, end, length).packed(content, lambda: ["the one"]).key)
    assert len(keys) == 4


def test_how_texts_were_cut_before_names_no_other_tokenizer(tokenizer: Any) -> None:
    before = Packer(tokenizer, 2, 4).identity
    tokenizer("a text that is cut", truncation=True, max_length=2, padding="max_length")
    assert Packer(tokenizer, 2, 4).identity == before


def test_a_broken_copy_is_made_again(tokenizer: Any) -> None:
    packer = Packer(tokenizer, 2, 4)
    packed = packer.packed("content", lambda: ["the one"])
    expected = packed.ids.tolist()
    damages: list[tuple[str, bytes]] = [("tokens.bin", b"\0\0")]
    for file in ("about.json", "block_bytes.npy", "block_crc.npy"):
        sound = (packed.folder / file).read_bytes()
        damages += [(file, damage) for damage in (b"", b"null", b"\xff\xfe", sound[:-1], flipped(sound, 5))]
        damages.append((file, flipped(sound, len(sound) - 10)))
    for file, damage in damages:
        (packed.folder / file).write_bytes(damage)
        again = packer.packed("content", lambda: ["the one"])
        assert again.ids.tolist() == expected and again.block_bytes.sum() == len("the one"), (file, damage)


def flipped(content: bytes, position: int) -> bytes:
    """A file with one bit that is another."""
    changed = bytearray(content)
    changed[position] ^= 2
    return bytes(changed)


def test_a_block_that_is_not_what_was_packed_is_said(tokenizer: Any) -> None:
    """Training would go on with other tokens, and no number of it would tell."""
    packed = Packer(tokenizer, 2, 4).packed("content", lambda: ["the one, the other"])
    file = packed.folder / "tokens.bin"
    file.write_bytes(flipped(file.read_bytes(), 9))
    packed = Packer(tokenizer, 2, 4).packed("content", lambda: [])
    assert packed.block(0).tolist() and packed.before(1) is not None
    for read in (packed.block, lambda index: packed.before(index + 1)):
        with pytest.raises(ValueError, match="damaged at block 1; delete this folder"):
            read(1)


def test_a_packed_corpus_of_before_blocks_had_checksums_is_packed_anew(tokenizer: Any) -> None:
    packer = Packer(tokenizer, 2, 4)
    packed = packer.packed("content", lambda: ["the one"])
    about = {"dtype": packed.dtype, "length": packed.length, "num_tokens": packed.num_tokens}
    (packed.folder / "about.json").write_text(json.dumps(about))
    (packed.folder / "block_crc.npy").unlink()
    assert packer.packed("content", lambda: ["the one"]).block(0).tolist() == packed.ids[:4].tolist()


def test_what_fails_half_way_leaves_nothing(tokenizer: Any) -> None:
    def broken() -> Iterator[str]:
        yield "the one"
        raise ValueError("line 2")

    with pytest.raises(ValueError, match="line 2"):
        Packer(tokenizer, 2, 4).packed("content", broken)
    assert [path.name for path in cache_folder().iterdir() if path.is_dir()] == []


def test_who_is_second_takes_what_the_first_has_made(tokenizer: Any) -> None:
    """Two machines that do not see each other's locks: each writes aside, and one of them gives the name."""
    packer = Packer(tokenizer, 2, 4)
    packed = packer.packed("content", lambda: ["the one"])
    made = (packed.folder / "tokens.bin").stat()
    packer._make(packed.folder, lambda: ["the one"])
    assert (packed.folder / "tokens.bin").stat().st_mtime_ns == made.st_mtime_ns
    assert [path.name for path in cache_folder().iterdir() if path.is_dir()] == [packed.key]


def test_two_processes_at_once_pack_it_once(tokenizer: Any, tmp_path: Path) -> None:
    def check(rank: int) -> None:
        def documents() -> Iterator[str]:
            with (tmp_path / "read").open("a") as file:
                file.write(f"{rank}\n")
            yield from ["the one", "the other"] * 200

        packed = Packer(tokenizer, 2, 4).packed("content", documents)
        (tmp_path / f"{rank}.json").write_text(json.dumps(packed.ids.tolist()))

    in_workers(check, 2, tmp_path)
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text()
    assert len((tmp_path / "read").read_text().splitlines()) == 1


def test_many_tokens_take_wider_numbers(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "__len__", lambda self: 2**16 + 1)
    assert Packer(tokenizer, 70_000, 4).packed("content", lambda: ["the"]).ids.tolist()[-1] == 70_000


def test_the_folder_is_the_users_unless_a_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder().name == "cache"
    monkeypatch.delenv("CL_PACKED_DIR")
    assert cache_folder() == Path.home() / ".cache" / "continual-orchestrator" / "packed"


def test_a_folder_that_cannot_be_written_is_named(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CL_PACKED_DIR", str(tmp_path / "file" / "packed"))
    with pytest.raises(
        ValueError, match=r"^packed corpora cannot be written to '.*/file/packed': .*; CL_PACKED_DIR names"
    ):
        Packer(tokenizer, 2, 4).packed("content", lambda: ["the one"])
