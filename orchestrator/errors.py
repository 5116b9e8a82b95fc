"""Errors that end in one line on the user's screen."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong: what, where, and what is allowed. Exit code 2."""


class SequenceFailed(RuntimeError):
    """A sequence cannot go on, through its own fault. Ends the sequence, not the run."""


class NonFiniteLoss(SequenceFailed):
    """The loss, a gradient or a weight is no longer a number; the message names task and step."""
