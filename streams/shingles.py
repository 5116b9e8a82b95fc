"""Near-duplicates: texts that have runs of five words (shingles) in common, found through an inverted index."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

SHINGLE_WORDS = 5
# A shingle in more texts than this is a stock phrase (a question that a data set repeats): following it would compare
# all with all.
STOCK = 200


def shingles(text: str) -> frozenset[int]:
    """The hashes of the text's runs of five words; a shorter text is one run.

    Python salts its hashes in each process: they are compared within one, and never stored.
    """
    words = text.split()
    runs = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return frozenset(hash(tuple(words[start : start + SHINGLE_WORDS])) for start in runs)


class ShingleIndex:
    """Answers which of its texts is most like another one."""

    def __init__(self, texts: Sequence[str]) -> None:
        postings: dict[int, list[int]] = defaultdict(list)
        self._sizes = []
        for number, text in enumerate(texts):
            runs = shingles(text)
            self._sizes.append(len(runs))
            for run in runs:
                postings[run].append(number)
        self._stock_of: dict[int, set[int]] = defaultdict(set)
        for run in [run for run, numbers in postings.items() if len(numbers) > STOCK]:
            for number in postings.pop(run):
                self._stock_of[number].add(run)
        self._postings = postings

    def nearest(self, text: str) -> tuple[float, int]:
        """(Jaccard similarity of the shingles, number of the text) for the text most like this one, or (0, -1).

        The similarity is exact; a text that shares nothing but stock phrases is not looked at.
        """
        runs = shingles(text)
        shared: Counter[int] = Counter()
        for run in runs:
            shared.update(self._postings.get(run, ()))
        best = (0.0, -1)
        for number, count in shared.items():
            both = count + len(runs & self._stock_of[number]) if number in self._stock_of else count
            similarity = both / (len(runs) + self._sizes[number] - both)
            if (similarity, -number) > (best[0], -best[1]):
                best = similarity, number
        return best
