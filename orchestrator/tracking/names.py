"""TODO orchestrator.tracking.names"""

from __future__ import annotations

from typing import Any


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by their path."""
    if isinstance(values, dict):
        return {k: v for key, item in values.items() for k, v in flatten(item, f"{prefix}{key}.").items()}
    if isinstance(values, list) and any(isinstance(item, dict) for item in values):
        return {k: v for i, item in enumerate(values) for k, v in flatten(item, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): values}


def plain_name(name: str) -> str:
    """Without the signs that a model's name must not have."""
    return "".join("-" if c in "/:.%\"'" else c for c in name)


def safe(key: str) -> str:
    """MLflow allows letters, digits and a few signs in names."""
    return "".join(c if c.isalnum() or c in "_-. /" else "-" for c in key)
