"""A large corpus is what it is called, and the claim about its memory can fail; times are nobody's promise."""

from __future__ import annotations

import json
import mmap
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.bench.corpus import MB, PeakMemory, main, print_corpus_costs, write_corpus
from streams import vocabulary


def test_a_corpus_has_the_size_and_no_document_twice(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.txt", 300_000)
    lines = (tmp_path / "corpus.txt").read_text().splitlines()
    assert 300_000 <= (tmp_path / "corpus.txt").stat().st_size < 302_000
    assert len(set(lines)) == len(lines)
    assert set(lines[0].split()[1:]) <= set(vocabulary())


def test_memory_is_looked_at_with_and_without_mapped_files(tmp_path: Path) -> None:
    size = 40 * MB
    (tmp_path / "file").write_bytes(b"x" * size)
    memory = PeakMemory()
    memory.look()
    before = (memory.rss, memory.anonymous)
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[::4096].count(b"x") == -(-size // 4096)
        memory.look()
    assert memory.rss - before[0] > 0.9 * size
    assert memory.anonymous - before[1] < 0.3 * size


def test_a_small_corpus_is_hashed_packed_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus.txt", 60_000)
    main(str(tmp_path / "corpus.txt"), steps=1)
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "corpus.txt").read_text().splitlines()
    # some are held out for test
    assert 0.8 * len(lines) < result["documents"] < len(lines)
    # a number, a hundred words of a token each, and the end
    assert result["tokens"] == pytest.approx(104 * result["documents"], rel=0.15)
    assert result["base_mb"] <= result["peak_without_mapped_mb"] <= result["peak_mb"]
    output = StringIO()
    print_corpus_costs({"mb": 1, **result}, Console(file=output, width=200))
    assert f"{result['peak_without_mapped_mb']} MB" in output.getvalue()
