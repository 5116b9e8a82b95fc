"""Passwords and tokens are written nowhere: what leaves a command, to a file or to the screen, goes through `redacted`.

Hidden are the names and passwords of URIs, the values of their parameters such as `token`, and whatever the environment holds
under a name that ends like `HF_TOKEN` or `MLFLOW_TRACKING_PASSWORD`.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any, TextIO

# What stands in the place of a secret
HIDDEN = "***"

# `user:password@`, or of a web server also `token@`. Up to the last `@`: a password may have one, and a `/` too, but what
# follows the number of a port is a path. Elsewhere a name alone is no secret: `abfs://container@account`.
_USERINFO = re.compile(r'://[^\s/@:"]*:(?!\d+[/?#])[^\s"]*@|(?<=http)://[^\s/@"]+@|(?<=https)://[^\s/@"]+@')
_PARAMETER = re.compile(
    r"([?&;](?:[\w.-]*(?:token|password|passwd|pwd|secret|signature|credential|key)|sig|auth|odbc_connect)=)[^\s&;#\"']+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|ACCESS_KEY|API_KEY)$", re.IGNORECASE)

# Shorter values are words that stand in texts for other reasons, such as `true`
_FEWEST_CHARACTERS = 8


def redacted(text: str) -> str:
    """The text with `***` in the place of each secret."""
    text = _without_uri_secrets(text)
    secrets = _secrets_of_environment()
    if secrets:
        text = _pattern(secrets).sub(HIDDEN, text)
    return text


def redacted_values(values: Any) -> Any:
    """Plain values with all their texts redacted."""
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, dict):
        return dict(zip(values, map(redacted_values, values.values()), strict=True))
    if isinstance(values, list):
        return list(map(redacted_values, values))
    return values


def has_uri_secret(text: str) -> bool:
    """Whether a text has a URI with a password or a token in it."""
    return _without_uri_secrets(text) != text


def _without_uri_secrets(text: str) -> str:
    text = _USERINFO.sub(f"://{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1{HIDDEN}", text)


def _secrets_of_environment() -> tuple[str, ...]:
    secrets = []
    # asked each time: a program may set a token after the import
    for name, value in os.environ.items():
        if len(value) >= _FEWEST_CHARACTERS and _SECRET_NAME.search(name):
            secrets.append(value)
    # the longest first, or of one that begins with another the rest would stay
    return tuple(sorted(secrets, key=len, reverse=True))


@functools.lru_cache(maxsize=1)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    # a password of digits is not to be found amid a longer number
    return re.compile(rf"(?<!\d)(?:{'|'.join(map(re.escape, secrets))})(?!\d)")


class RedactingStream:
    """A text stream that writes nothing but redacted text, and is otherwise the one that it was given."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        self._stream.write(redacted(text))
        # of what was given: a caller would write the rest again
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
