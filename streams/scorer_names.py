"""The names by which a task says how its answers are scored, the version of each scorer, and what it takes for equal.

The scorers themselves are in `orchestrator.evaluation`, which knows tasks; a task knows its scorer by name alone. A
score is cached under that name and version, so a scorer whose results change gets a new version here.
"""

from __future__ import annotations

from collections.abc import Callable

from streams.names import unknown_name
from streams.task import Task
from streams.text import normalise_answer, single_spaces

SCORER_VERSIONS: dict[str, int] = {"exact-match": 1, "verbatim": 1}
# what is left of an answer, and of its target, before the two are compared
NORMAL_FORMS: dict[str, Callable[[str], str]] = {"exact-match": normalise_answer, "verbatim": single_spaces}


def check_scorer(name: str) -> None:
    """Raises ValueError for a name that no scorer has."""
    if name not in SCORER_VERSIONS:
        raise ValueError(unknown_name("scorer", name, SCORER_VERSIONS))


def check_labels(task: Task) -> None:
    """Raises ValueError where the task's scorer cannot tell two of its labels apart, or takes one for no answer at all.

    After the published normalisation `C` equals `C++` and `-1` equals `1`, so that a model that always answers the one
    would be right about the other; and nothing is left of `+`, so that an empty answer would be right.
    """
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
            raise ValueError(
                f"task {task.name!r}: {problem}, which compares answers without case and punctuation; "
                "`scorer: verbatim` keeps both"
            )
        label_of[normal] = label
