"""The versions of libraries, and what is said where states of others are reused."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from orchestrator.store.versions import library_versions, release, reuse_line

PRESENT = {"python": "3.11.7", "torch": "2.13.0+cpu", "peft": "0.21.1", "ray": "2.60.0", "numpy": "2.2.1"}


def test_versions_are_those_that_run() -> None:
    found = library_versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert {"transformers", "peft", "tokenizers", "continual-orchestrator"} <= set(found)


@pytest.mark.parametrize(("version", "expected"), [("2.12.1+cu128", "2.12"), ("0.21.0", "0.21"), ("5.24", "5.24")])
def test_a_release_is_the_first_two_numbers(version: str, expected: str) -> None:
    assert release(version) == expected


def test_only_other_releases_of_what_computes_are_said() -> None:
    same = {**PRESENT, "torch": "2.13.2", "ray": "2.50.0"}
    assert reuse_line([PRESENT, same, {}], PRESENT) is None
    older = {**PRESENT, "torch": "2.12.1"}
    assert reuse_line([PRESENT, older, older], PRESENT) == "checkpoints of torch 2.12 are reused with 2.13"
    oldest = {**PRESENT, "torch": "2.9.0", "peft": "0.20.0"}
    assert reuse_line([older, oldest], PRESENT) == (
        "checkpoints of torch 2.12, 2.9 and peft 0.20 are reused with 2.13 and 0.21"
    )
