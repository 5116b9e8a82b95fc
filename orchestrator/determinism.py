"""`training.deterministic`: operations alone whose result does not depend on the order in which a device's threads end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from orchestrator.errors import SequenceFailed

# One of the two settings under which cuBLAS always takes the same way (its manual, "Results reproducibility")
CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_SETTING = ":4096:8"


@contextlib.contextmanager
def deterministic(is_asked: bool) -> Iterator[None]:
    """Meanwhile, where it is asked for, this process takes deterministic operations; afterwards what it took before.

    Raises SequenceFailed where an operation has no such form.
    """
    if not is_asked:
        yield
        return
    # read with the first product of matrices in a process, which is inside; a value of the user's own stays
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_SETTING)
    was_enabled = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        # torch has no class of its own for it
        if "deterministic" not in str(error) or isinstance(error, SequenceFailed):
            raise
        operation = str(error).partition(" does not have a deterministic implementation")[0].splitlines()[0]
        raise SequenceFailed(
            f"training.deterministic: {operation} has no deterministic form on this device; allowed for such a model or "
            "method: false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(was_enabled, warn_only=was_warning)
