"""What answers now, swapped as one reference; what was swapped out is closed when the last request has left it."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog

from api.dataset import Dataset
from api.state import State
from api.version import Version

_LOG = structlog.get_logger("api")


class Fleet:
    """Holds the current state, and every version that is loaded. For the event loop's thread alone.

    Attributes:
        current: what the next request gets.

    Args:
        state: to begin with.
    """

    def __init__(self, state: State) -> None:
        self.current = state
        self._left: list[State] = []  # swapped out, and perhaps in use
        self._kept: Sequence[Version] = ()
        self._loaded: list[Version] = list(state.versions)
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def lease(self) -> Iterator[State]:
        """The current state, whole until this ends."""
        state = self.current
        with self.hold(state):
            yield state

    @contextmanager
    def borrow(self, name: str) -> Iterator[Version | None]:
        """A version that is loaded to stay, whole until this ends; None: there is none of this name."""
        version = self.version(name)
        if version is None:
            yield None
            return
        state = State(version.engine, version.data.clock, versions=[version])
        self._left.append(state)
        with self.hold(state):
            yield version

    @contextmanager
    def hold(self, state: State) -> Iterator[None]:
        """A state that is leased, for longer."""
        state.leases += 1
        try:
            yield
        finally:
            state.leases -= 1
            if not state.leases and state is not self.current:
                self._sweep()

    def swap(self, state: State, kept: Sequence[Version]) -> None:
        """Let a state answer from now on.

        Args:
            state: what the next request gets.
            kept: versions that stay loaded although the state does not use them.
        """
        self._left.append(self.current)
        self.current, self._kept = state, kept
        self._loaded += [version for version in (*state.versions, *kept) if version not in self._loaded]
        self._sweep()

    def version(self, name: str) -> Version | None:
        """A version that is loaded to stay."""
        return next((v for v in self._staying() if v.name == name), None)

    @property
    def names(self) -> list[str]:
        """The versions that are loaded to stay, the one that serves first."""
        return list(dict.fromkeys(version.name for version in self._staying()))

    def dataset(self, world: str) -> Dataset | None:
        """The data set of a version that is loaded to stay."""
        return next((v.data for v in self._staying() if v.data.world == world), None)

    @property
    def loaded(self) -> Sequence[Version]:
        """Every version in memory, also those that were swapped out and are in use."""
        return tuple(self._loaded)

    async def close(self) -> None:
        """Close everything, after the last request."""
        while self._closing:
            await asyncio.gather(*self._closing)
        for data in {version.data for version in self._loaded}:
            await data.close()
        for version in self._loaded:
            await version.close()
        if not self._loaded:  # a state made by hand
            await self.current.close()

    def _staying(self) -> list[Version]:
        return [*self.current.versions, *self._kept]

    def _sweep(self) -> None:
        """Close what no request uses, and nobody keeps."""
        self._left = [state for state in self._left if state.leases]
        states = (self.current, *self._left)
        used = {*self._kept, *(version for state in states for version in state.versions)}
        serving = {state.versions[0].data for state in states if state.versions}
        before, self._loaded = self._loaded, [version for version in self._loaded if version in used]
        datasets = {version.data for version in before}
        for version in before:
            if version not in used:
                self._end(version.close())
        left = {version.data for version in self._loaded}
        for data in datasets - left:
            self._end(data.close())
        for data in left - serving:  # its events would be folded into the features of another data set
            self._end(data.stop())

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("a version was not closed", exc_info=error)
