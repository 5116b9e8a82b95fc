"""How texts are compared and put in order: normal forms, and ranks that depend on a seed and the text alone."""

from __future__ import annotations

import hashlib
import string
import unicodedata


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, with single spaces: how answers are compared in the published evaluation."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())


def single_spaces(text: str) -> str:
    """The text with its case and punctuation, single blanks between words and none at its ends."""
    return " ".join(text.split())


def normal_text(text: str) -> str:
    """Lower case, with single spaces."""
    return " ".join(text.lower().split())


class _Punctuation(dict[int, int | None]):
    """A table for `str.translate` that drops what Unicode or ASCII calls punctuation."""

    def __missing__(self, code: int) -> int | None:
        # filled as characters are met: a table of all of Unicode would take longer to make than a stream to read
        char = chr(code)
        if char in string.punctuation or unicodedata.category(char).startswith("P"):
            self[code] = None
        else:
            self[code] = code
        return self[code]


_PUNCTUATION = _Punctuation()


def bare_text(text: str) -> str:
    """Lower case, without punctuation, with single spaces: two rows with one bare text hold the same text.

    A text of punctuation alone keeps it, so that `!!!` and `:)` remain two.
    """
    lower = normal_text(text)
    return " ".join(lower.translate(_PUNCTUATION).split()) or lower


def seeded_rank(text: str, seed: int) -> str:
    """Where a text stands in the order of a seed: a function of the text's normal form and the seed alone."""
    return hashlib.sha256(f"{seed}\n{normal_text(text)}".encode()).hexdigest()


def half_of(text: str) -> int:
    """The half (0 or 1) that a text belongs to, by its bare form alone: two spellings of one text share a half."""
    return hashlib.sha256(f"half\n{bare_text(text)}".encode()).digest()[-1] % 2
