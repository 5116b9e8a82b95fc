"""The names by which a task says how its answers are scored, the version of each scorer, and what it takes for equal.

The scorers themselves are in `orchestrator.evaluation`, which knows tasks; a task knows its scorer by name alone. A
score is cached under that name and version, so a scorer whose results change gets a new version here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from decimal import Decimal

from streams.names import unknown_name
from streams.task import Task
from streams.text import normalise_answer, single_spaces

SCORER_VERSIONS: dict[str, int] = {
    "exact-match": 1,
    "verbatim": 1,
    "accuracy": 1,
    "macro-f1": 1,
    "rouge-l": 1,
    "sari": 1,
    "edit-similarity": 1,
    "numeric": 1,
    "choice": 1,
    "perplexity": 1,
    "bits-per-byte": 1,
    "pass@1": 1,
}
# those that need no answer: how likely the target is to a model that writes
FROM_LIKELIHOOD = ("perplexity", "bits-per-byte")
# those that run what a model writes
RUNS_CODE = ("pass@1",)
# those that hold an answer against a set of labels, and say nothing where there is none
NEED_LABELS = ("accuracy", "macro-f1")
# the module that a scorer needs, and the package that has it; both come with the extra of that name
LIBRARIES = {"rouge-l": ("rouge_score", "rouge-score"), "edit-similarity": ("rapidfuzz", "rapidfuzz")}
LIBRARIES_EXTRA = "continual-orchestrator[scorers]"

# A sign is part of a number where it stands before none: of `10-5` the last number is 5
_NUMBER = re.compile(r"(?:(?<![\w.,])-)?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")


def last_number(text: str) -> str:
    """The last number of a text without thousands' commas and needless zeros (`-1,200.50` is `-1200.5`); empty for none."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return ""
    # exact, unlike a float: 0.1 and 0.10 are one number, and no two long numbers become one
    value = Decimal(numbers[-1].replace(",", ""))
    if not value:
        return "0"
    shown = f"{value:f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return shown


def chosen_option(text: str) -> str:
    """The option that an answer names, which is the first word, or the one after `Answer:`: of `Answer: B\\nBecause ...` B."""
    _, heading, rest = text.partition("Answer:")
    if not heading:
        rest = text
    word = re.search(r"\w+", rest)
    if word is None:
        return ""
    return word.group()


# what is left of an answer, and of its target, before the two are compared
NORMAL_FORMS: dict[str, Callable[[str], str]] = {
    "exact-match": normalise_answer,
    "verbatim": single_spaces,
    "accuracy": normalise_answer,
    "macro-f1": normalise_answer,
    "rouge-l": single_spaces,
    "sari": single_spaces,
    "edit-similarity": single_spaces,
    "numeric": last_number,
    "choice": chosen_option,
    "perplexity": single_spaces,
    "bits-per-byte": single_spaces,
    "pass@1": str.strip,
}


def check_scorer(name: str) -> None:
    """Raises ValueError for a name that no scorer has, and for a scorer whose library is not installed."""
    if name not in SCORER_VERSIONS:
        raise ValueError(unknown_name("scorer", name, SCORER_VERSIONS))
    if name in LIBRARIES:
        module, package = LIBRARIES[name]
        # found, not imported: some of them take a second
        if importlib.util.find_spec(module) is None:
            raise ValueError(
                f"the scorer {name!r} needs the package {package}, which is not installed: "
                f"pip install '{LIBRARIES_EXTRA}'"
            )


def check_labels(task: Task) -> None:
    """Raises ValueError for an unknown scorer, and where it cannot tell two labels apart or takes one for no answer at all.

    After the published normalisation `C` equals `C++` and `-1` equals `1`, so that a model that always answers the one
    would be right about the other; and nothing is left of `+`, so that an empty answer would be right. A scorer of labels
    needs some.
    """
    try:
        check_scorer(task.scorer)
    except ValueError as error:
        # a source of the user's own may give its tasks any
        raise ValueError(f"task {task.name!r}: {error}") from None
    if task.scorer in NEED_LABELS and not task.labels:
        raise ValueError(
            f"task {task.name!r} has no label set, which the scorer {task.scorer!r} needs; allowed for open answers: "
            + ", ".join(name for name in SCORER_VERSIONS if name not in NEED_LABELS)
        )
    normal_form = NORMAL_FORMS[task.scorer]
    label_of: dict[str, str] = {}
    for label in task.labels:
        normal = normal_form(label)
        problem = ""
        if not normal:
            problem = f"the label {label!r} is empty to the scorer {task.scorer!r}"
        elif normal in label_of:
            problem = f"the labels {label_of[normal]!r} and {label!r} are equal to the scorer {task.scorer!r}"
        if problem:
            raise ValueError(f"task {task.name!r}: {problem}, {_what_it_compares(task.scorer)}")
        label_of[normal] = label


def _what_it_compares(scorer: str) -> str:
    if NORMAL_FORMS[scorer] is last_number:
        return "which compares the last numbers of answers; `exact-match` and `verbatim` compare whole answers"
    if NORMAL_FORMS[scorer] is chosen_option:
        return "which compares the first words of answers; `exact-match` and `verbatim` compare whole answers"
    return "which compares answers without case and punctuation; `scorer: verbatim` keeps both"
