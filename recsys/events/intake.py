"""Events from many requests at once: those that wait together are flushed together, and folded together."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from recsys.errors import EventLogUnavailable
from recsys.events.event import Event
from recsys.events.folder import Folder

MOST_WAITING: Final = 20_000  # events
_BATCH: Final = 2_000  # events of one flush
_RETRY_S: Final = 0.25


@dataclass(frozen=True)
class Receipt:
    """What became of some events.

    Attributes:
        accepted: they are in the log.
        duplicates: their ids were there already.
        online: all of them count in the next answer; else they wait in the log for the online store.
    """

    accepted: int
    duplicates: int
    online: bool


@dataclass
class _Waiting:
    events: Sequence[Event]
    done: "asyncio.Future[Receipt]"
    taken: int = 0
    last: int = 0  # position in the log up to which they must be folded

    def answer(self, *, online: bool) -> None:
        if not self.done.done():  # whoever asked may have gone
            self.done.set_result(Receipt(self.taken, len(self.events) - self.taken, online))

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Intake:
    """One task appends what has arrived, one folds what was appended; an answer waits for both.

    While the states cannot be changed (Redis is down, another process fills them), events are appended and answered
    at once, and folding is tried again until it succeeds.

    Attributes:
        taken, duplicates: events of this process that are in the log, and those whose ids were there already.
        folded: position in the log up to which everything is in the states, as last seen; None: not yet.

    Args:
        folder: does the work, in two threads.
        on_trouble: called with what keeps events from being folded, when that changes, and with None when it is over.
    """

    def __init__(self, folder: Folder, on_trouble: Callable[[Exception | None], None] = lambda _: None) -> None:
        self._folder, self._on_trouble = folder, on_trouble
        self._trouble: str | None = None
        self.taken = self.duplicates = 0
        self.folded: int | None = None
        self._arrived, self._appended = asyncio.Event(), asyncio.Event()
        self._queue: deque[_Waiting] = deque()
        self._unfolded: deque[_Waiting] = deque()
        self._waiting = 0  # events that are not in the log yet
        self._behind = True  # whether the log may hold what is not in the states
        self._ready = True  # whether it is worth waiting until they are
        self._closing = self._drained = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="events")

    @property
    def trouble(self) -> str | None:
        """What keeps events from being folded; None: nothing."""
        return self._trouble

    @property
    def last(self) -> int:
        """Position of the last event that is known to be in the log."""
        return self._folder.log.last

    @property
    def waiting(self) -> int:
        """Events that are not in the log yet, whose senders wait."""
        return self._waiting

    def start(self) -> None:
        """Begin, with what an earlier process left unfolded."""
        self._tasks = (asyncio.create_task(self._append()), asyncio.create_task(self._fold()))

    async def submit(self, events: Sequence[Event]) -> Receipt:
        """Take events; returns when they are on disk and, where that is possible, in the states.

        Raises:
            EventLogUnavailable: too many events wait already, or the log cannot be written; none of these was taken.
            DataError: the log is damaged.
        """
        if self._closing or self._waiting + len(events) > MOST_WAITING:
            why = "the service is stopping" if self._closing else f"at most {MOST_WAITING} events may wait"
            raise EventLogUnavailable(f"{why} (got {len(events)} more than {self._waiting})")
        waiting = _Waiting(events, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._waiting += len(events)
        self._arrived.set()
        return await waiting.done

    async def close(self) -> None:
        """Take no more; end when everything that was taken is on disk and folding was tried."""
        self._closing = True
        self._arrived.set()
        await asyncio.gather(*self._tasks[:1])
        self._drained = True
        self._appended.set()
        await asyncio.gather(*self._tasks)
        self._threads.shutdown()

    async def _append(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = [self._queue.popleft()]
            size = len(batch[0].events)
            while self._queue and size + len(self._queue[0].events) <= _BATCH:
                batch.append(self._queue.popleft())
                size += len(batch[-1].events)
            await self._append_batch(batch)
            self._waiting -= size

    async def _append_batch(self, batch: Sequence[_Waiting]) -> None:
        events = [event for waiting in batch for event in waiting.events]
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._threads, self._folder.append, events)
        except Exception as error:  # noqa: BLE001 - whoever sent them must hear of it, and the next ones be taken
            for waiting in batch:
                waiting.fail(error)
            return
        last, flags = self.last, iter(taken)
        self.taken, self.duplicates = self.taken + sum(taken), self.duplicates + len(taken) - sum(taken)
        for waiting in batch:
            waiting.taken, waiting.last = sum(next(flags) for _ in waiting.events), last
            if self._ready:
                self._unfolded.append(waiting)
            else:
                waiting.answer(online=False)
        self._behind = True
        if self._ready:
            self._appended.set()

    async def _fold(self) -> None:
        while True:
            if self._trouble is not None and not self._drained:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._appended.wait(), _RETRY_S)
            elif not self._behind and not self._drained:
                await self._appended.wait()
            self._appended.clear()
            final, target, self._behind = self._drained, self.last, False
            folded = 0
            try:
                folded = await asyncio.get_running_loop().run_in_executor(self._threads, self._folder.fold)
                self.folded = folded
                self._say(None)
            except Exception as error:  # noqa: BLE001 - the events are safe in the log: say it, and try again
                self._say(error)
            self._ready = folded >= target and self._trouble is None
            self._behind |= not self._ready
            while self._unfolded and self._unfolded[0].last <= max(folded, target):
                waiting = self._unfolded.popleft()
                waiting.answer(online=waiting.last <= folded)
            if not self._ready:  # these arrived in the meantime
                while self._unfolded:
                    self._unfolded.popleft().answer(online=False)
            if final:
                return

    def _say(self, error: Exception | None) -> None:
        said = None if error is None else f"{type(error).__name__}: {error}"
        if said != self._trouble:
            self._trouble = said
            self._on_trouble(error)
