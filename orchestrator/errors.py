"""Errors that end in one line on the user's screen."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong: what, where, and what is allowed. Exit code 2."""


class NonFiniteLoss(RuntimeError):
    """The loss is no longer a number. Ends the sequence, not the run; the message names task and step."""
