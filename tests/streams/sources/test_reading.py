from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from streams.sources.reading import find_files, form_of, full_path, json_row, lines_of, listed, name_of


def test_a_file_is_read_by_lines_whatever_its_compression(tmp_path: Path) -> None:
    for name, text in (("b.txt", b"\xef\xbb\xbfone\ntwo\n"), ("a.txt.gz", gzip.compress(b"three\n"))):
        (tmp_path / name).write_bytes(text)
    files = find_files("law", str(tmp_path / "*.txt*"))
    assert [Path(name_of(file)).name for file in files] == ["a.txt.gz", "b.txt"]
    assert [list(lines_of(file)) for file in files] == [[(1, "three\n")], [(1, "one\n"), (2, "two\n")]]


def test_names_say_where_a_file_is_and_what_form_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert full_path("a/b.txt") == str(tmp_path / "a" / "b.txt")
    assert full_path("s3://bucket/b.txt") == "s3://bucket/b.txt"
    assert [form_of(name) for name in ("a.jsonl.gz", "a.b.txt", "a.gz", "a")] == [".jsonl", ".txt", "", ""]
    assert listed("a") == ("a",)
    assert listed(("a", "b")) == ("a", "b")


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(ValueError, match=r"^task 'law': no such file: .*none\.txt$"):
        find_files("law", str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: not UTF-8 text$"):
        list(lines_of(find_files("law", str(tmp_path / "bad.txt"))[0]))
    with pytest.raises(ValueError, match=r"^f, line 3: malformed JSON: .+$"):
        json_row("{", "f, line 3")
    with pytest.raises(ValueError, match=r"^f: expected an object with a value for each column, found list$"):
        json_row("[]", "f")
