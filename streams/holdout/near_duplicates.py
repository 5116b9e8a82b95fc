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
    num_runs = max(1, len(words) - SHINGLE_WORDS + 1)
    runs = set()
    for start in range(num_runs):
        # the hash alone: of ten million runs the words themselves would not fit into memory
        runs.add(hash(tuple(words[start : start + SHINGLE_WORDS])))
    return frozenset(runs)


class ShingleIndex:
    """Answers which of its texts is most like another one."""

    def __init__(self, texts: Sequence[str]) -> None:
        # for each shingle the numbers of the texts that hold it
        self._postings: dict[int, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        for number, text in enumerate(texts):
            runs = shingles(text)
            self._sizes.append(len(runs))
            for run in runs:
                self._postings[run].append(number)
        # stock phrases are not followed, but a pair that is found otherwise still shares them
        self._stock_of: dict[int, set[int]] = defaultdict(set)
        for run in list(self._postings):
            if len(self._postings[run]) > STOCK:
                for number in self._postings.pop(run):
                    self._stock_of[number].add(run)

    def nearest(self, text: str) -> tuple[float, int]:
        """(Jaccard similarity of the shingles, number of the text) for the text most like this one, or (0, -1).

        The similarity is exact; a text that shares nothing but stock phrases is not looked at.
        """
        runs = shingles(text)
        num_shared: Counter[int] = Counter()
        for run in runs:
            # not by index, which would add an empty list for every run that is asked for
            num_shared.update(self._postings.get(run, ()))
        best_similarity = 0.0
        best_number = -1
        for number, shared in num_shared.items():
            if number in self._stock_of:
                shared += len(runs & self._stock_of[number])
            similarity = shared / (len(runs) + self._sizes[number] - shared)
            # of equally near texts the first, whatever order a set of runs came in
            if (similarity, -number) > (best_similarity, -best_number):
                best_similarity = similarity
                best_number = number
        return best_similarity, best_number
