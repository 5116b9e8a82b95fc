"""The one line that answers what a user may not write."""

from __future__ import annotations

import pytest

from orchestrator.config.loading import load_config
from orchestrator.errors import UserError


def refused(*overrides: str, source: str | None = None) -> str:
    """The one line of a refused configuration."""
    with pytest.raises(UserError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message
