"""Errors that end in one line on the user's screen.

They cross the borders of processes, so none has an `__init__` of its own: such an error could not be unpickled.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong: what, where, and what is allowed. Exit code 2."""


class SequenceFailed(RuntimeError):
    """A sequence cannot go on, through its own fault. Ends the sequence, not the run."""


class NonFiniteLoss(SequenceFailed):
    """The loss, a gradient or a weight is no longer a number; the message names task and step."""


class WorkerFailed(RuntimeError):
    """A worker cannot go on; its group is started again, and another attempt may succeed."""


class Preempted(RuntimeError):
    """A sequence was left on request, with its state written as far as it was. No failure: the same command goes on."""


class CommandFailed(RuntimeError):
    """The command itself cannot go on, for a reason that nobody foresaw; the message names the log. Exit code 1."""
