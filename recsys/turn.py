"""Of the threads that answer, one computes at a time, and lets another go on while it waits for a server.

They share one interpreter lock, which numpy drops and takes again many times in a request. Where others want it,
each time is a switch of threads that costs more than what was computed; and whoever has an answer of the online store
gets the lock too late, which its deadline takes for a store that is gone. With a turn they wait in one place.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class Turn:
    """A lock that its holder gives up while it waits for something else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Compute. Not to be nested."""
        with self._lock:
            self._thread.computes = True
            try:
                yield
            finally:
                self._thread.computes = False

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Wait for something, or take a lock that others hold while they do.

        Nothing changes for a thread that has not taken it, or has given it up already.
        """
        if not getattr(self._thread, "computes", False):
            yield
            return
        self._thread.computes = False
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._thread.computes = True


TURN: Final = Turn()  # of a process, whose interpreter lock it is about
