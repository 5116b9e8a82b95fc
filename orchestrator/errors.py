"""Errors that end in one line on the user's screen.

They cross the borders of processes, so none has an `__init__` of its own: such an error could not be unpickled.
"""

from __future__ import annotations

from orchestrator.redaction import redacted

# What a message shows at most: of all of it, and of a value that was found
MOST_CHARACTERS = 300
MOST_OF_A_VALUE = 80


class UserError(ValueError):
    """Something that the user gave is wrong: what, where, and what is allowed. Exit code 2."""


class SequenceFailed(RuntimeError):
    """A sequence cannot go on, through its own fault. Ends the sequence, not the run."""


class NonFiniteLoss(SequenceFailed):
    """The loss, a gradient or a weight is no longer a number; the message names task and step."""


class WorkerFailed(RuntimeError):
    """A worker cannot go on; its group is started again, and another attempt may succeed."""


class StorageFailed(RuntimeError):
    """An object store did not do what it was asked; the message names the object. Another attempt may succeed."""


class Preempted(RuntimeError):
    """A sequence was left on request, with its state written as far as it was. No failure: the same command goes on."""


class CommandFailed(RuntimeError):
    """The command itself cannot go on, for a reason that nobody foresaw; the message names the log. Exit code 1."""


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text if it is short, else its beginning and its end: what is wrong stands at one, what is allowed at the other."""
    # before it is cut: of half a URI nobody knows what the password is
    text = redacted(text)
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 3]} … {text[len(text) - end :]}"


def shown(value: object) -> str:
    """A value that a user gave, as Python writes it, in one short line."""
    try:
        written = repr(value)
    # a whole number of thousands of digits, or lists within lists within lists
    except (ValueError, RecursionError):
        written = f"a {type(value).__name__} that is too large to write"
    return shortened(written, MOST_OF_A_VALUE)


def as_given(text: str) -> str:
    """A name or setting as the user wrote it; quoted and cut where it would not fit into a line."""
    if text.isprintable() and 0 < len(text) <= MOST_OF_A_VALUE:
        return text
    return shown(text)
