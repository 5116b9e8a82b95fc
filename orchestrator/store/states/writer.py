"""A thread that writes a state while its process goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack


class StateWriter:
    """Writes one state at a time beside what its process does meanwhile.

    One at a time, since each is a copy of all weights in memory. What goes wrong is raised where the state is waited for.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def start(self, write: Callable[[], object], held: ExitStack) -> None:
        """Begin to write; what is `held`, such as the lock of the state's key, is given back when it is written, or failed."""
        assert self._writing is None, "the state before is to be waited for first"

        def work() -> None:
            with held:
                write()

        self._writing = self._executor.submit(work)

    @property
    def has_ended(self) -> bool:
        """Whether a state was being written, is no longer, and has not been waited for."""
        return self._writing is not None and self._writing.done()

    @property
    def is_idle(self) -> bool:
        """Whether there is no state to wait for."""
        return self._writing is None

    def wait(self) -> None:
        """Wait for the state that is being written. Raises what its writing raised."""
        writing = self._writing
        if writing is not None:
            # let go of first: an error too is told once
            self._writing = None
            writing.result()

    def close(self) -> None:
        """End the thread when it has written what it was given."""
        self._executor.shutdown(wait=True)
