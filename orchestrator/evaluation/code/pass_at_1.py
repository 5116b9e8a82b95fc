"""The scorer of programs: an answer is right where it passes its checks."""

from __future__ import annotations

import re

import numpy as np

from orchestrator.evaluation.code.isolated_run import passes
from orchestrator.evaluation.scorer import ExampleScore, Scorer
from streams import Example

# Where a model that goes on with a function has begun something else (the released stop words of HumanEval, arXiv 2107.03374)
_BEHIND_THE_FUNCTION = re.compile(r"\n(?=class |def |#|if |print\()")
_FENCED = re.compile(r"```[A-Za-z0-9]*\n(.*?)(?:```|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


class PassAt1(Scorer):
    """The share of answers that are programs and pass the checks that stand in place of an answer; they are run.

    One answer is written greedily to each text (HumanEval's pass@1 at temperature 0, arXiv 2107.03374).
    """

    name = "pass@1"
    series = "pass-at-1"

    def number(self, answer: str, example: Example) -> float:
        return float(passes(program_of(example.text, answer, example.label)))

    def score_example(self, answer: str, example: Example) -> ExampleScore:
        # run once: what passes is right
        number = self.number(answer, example)
        return ExampleScore(number, number == 1.0, np.array([number, 1.0]))


def program_of(text: str, answer: str, checks: str) -> str:
    """The program that is run: what the text begins and the answer goes on with, or a whole program; then the checks.

    A whole program is one that defines the last function of the text itself, or stands in a fence. Of an answer that goes
    on with a function, what it begins behind that is left out.
    """
    answer = _aligned(answer)
    fenced = _FENCED.search(answer)
    if fenced:
        return f"{_imports(text)}{fenced[1]}\n{checks}\n"
    asked = _FUNCTION.findall(text)
    if not asked or asked[-1] in _FUNCTION.findall(answer):
        return f"{_imports(text)}{answer}\n{checks}\n"
    own = _BEHIND_THE_FUNCTION.split(answer)[0]
    return f"{text}{own}\n{checks}\n"


def _aligned(answer: str) -> str:
    """The answer with the blank that stands before an answer's first word taken off, or given back where decoding took it."""
    indent = len(answer) - len(answer.lstrip(" "))
    if indent % 4 == 1:
        return answer[1:]
    if indent % 4 == 3:
        return f" {answer}"
    return answer


def _imports(text: str) -> str:
    """The lines of a text that import: a program that is written anew may take them for given."""
    lines = [line for line in text.splitlines() if re.match(r"(import|from) \w", line)]
    return "".join(f"{line}\n" for line in lines)
