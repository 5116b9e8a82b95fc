"""SARI: how well a simplification adds, keeps and deletes the words of its source, held against references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LONGEST = 4


def sari(source: str, answer: str, references: Sequence[str]) -> float:
    """SARI of one answer, from 0 to 1 (Xu et al. 2016, TACL 4, pages 401 to 415). Higher is better.

    (F1 of additions + F1 of what is kept + precision of deletions) / 3, each the mean over n-grams of 1 to 4 words. As in
    the authors' released script: words are lower case and parted by blanks; for what is kept and deleted each distinct
    n-gram has one vote, whereas the paper's formula sums counts; 0/0 is 0, so that an answer of fewer than four words cannot
    reach 1, not even the reference itself. (The script of Hugging Face takes 0/0 for 1 and sums counts in the recall.)
    """
    source_words = source.lower().split()
    answer_words = answer.lower().split()
    reference_words = [reference.lower().split() for reference in references]
    total = 0.0
    for length in range(1, LONGEST + 1):
        in_references: Counter[tuple[str, ...]] = Counter()
        for words in reference_words:
            in_references += _ngrams(words, length)
        # as often as there are references: each of these says anew whether an n-gram should be there
        in_source = _times(_ngrams(source_words, length), len(references))
        in_answer = _times(_ngrams(answer_words, length), len(references))
        total += _kept(in_source, in_answer, in_references)
        total += _deleted(in_source, in_answer, in_references)
        total += _added(set(in_source), set(in_answer), set(in_references))
    return total / (3 * LONGEST)


def _ngrams(words: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[first : first + length]) for first in range(len(words) - length + 1))


def _times(counts: Counter[tuple[str, ...]], factor: int) -> Counter[tuple[str, ...]]:
    return Counter({ngram: count * factor for ngram, count in counts.items()})


def _kept(
    in_source: Counter[tuple[str, ...]], in_answer: Counter[tuple[str, ...]], in_references: Counter[tuple[str, ...]]
) -> float:
    """F1 of the source's n-grams that are kept, each counted as far as the references keep it."""
    kept = in_source & in_answer
    to_keep = in_source & in_references
    rightly_kept = kept & to_keep
    return _f1(_mean_share(rightly_kept, kept), _mean_share(rightly_kept, to_keep))


def _deleted(
    in_source: Counter[tuple[str, ...]], in_answer: Counter[tuple[str, ...]], in_references: Counter[tuple[str, ...]]
) -> float:
    """Precision of the source's n-grams that are left out. Recall would reward who leaves out everything."""
    deleted = in_source - in_answer
    return _mean_share(deleted - in_references, deleted)


def _added(
    in_source: set[tuple[str, ...]], in_answer: set[tuple[str, ...]], in_references: set[tuple[str, ...]]
) -> float:
    """F1 of the n-grams that the source has not. How often each is added does not count."""
    added = in_answer - in_source
    to_add = in_references - in_source
    num_right = len(added & to_add)
    precision = num_right / len(added) if added else 0.0
    recall = num_right / len(to_add) if to_add else 0.0
    return _f1(precision, recall)


def _mean_share(part: Counter[tuple[str, ...]], whole: Counter[tuple[str, ...]]) -> float:
    """The mean over the distinct n-grams of the whole of the share that is in the part."""
    if not whole:
        return 0.0
    total = 0.0
    for ngram, count in part.items():
        total += count / whole[ngram]
    return total / len(whole)


def _f1(precision: float, recall: float) -> float:
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
