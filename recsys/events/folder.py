"""From the log into the states: append, then fold what is not in them yet."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from recsys.errors import DataError, NotReady
from recsys.events.event import Event
from recsys.events.folding import fold_events
from recsys.events.log import EventLog
from recsys.events.reader import Reader
from recsys.features import LiveStates, Mark

_CHUNK: Final = 1_000  # events of one round trip
_AT_ONCE: Final = 20_000  # events of one turn: a few seconds
_BUSY_S: Final = 0.25
_ALIVE_S: Final = 0.1  # whoever sent an event waits for no frozen server longer

Clock = Callable[[], datetime]
Progress = Callable[[int, int], None]


class Folder:
    """Takes events into a log and folds the log into the states. One thread may append while another folds.

    Args:
        log: of the data set that the states are about.
        live: the states.
        now: the moment as of which the data are.
        wall: the moment by the server's clock.
    """

    def __init__(self, log: EventLog, live: LiveStates, *, now: Clock, wall: Clock) -> None:
        self.log, self._live, self._now, self._wall = log, live, now, wall
        self._reader = Reader(log.folder)

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Write events to the log; see `EventLog.append`."""
        return self.log.append(events)

    def fold(self) -> int:
        """Fold what is in the log and not in the states yet, for a few seconds at most.

        Returns:
            The position up to which everything is in the states.

        Raises:
            NotReady: the states were never filled, or are gone; the events stay in the log.
            EventLogUnavailable: another process folds, or fills the states.
            FeatureStoreUnavailable: the states do not answer.
            DataError: the log is damaged, or has lost what the states know.
        """
        with self.log.folding(_BUSY_S):
            return _fold(
                self.log, self._live, self._reader, self._now(), self._wall(), most=_AT_ONCE, within_s=_ALIVE_S
            )


def fold_pending(
    log: EventLog, live: LiveStates, now: datetime, wall: datetime, *, progress: Progress | None = None
) -> int:
    """Fold everything that is in the log and not in the states yet.

    Args:
        log: of the data set that the states are about.
        live: the states.
        now: the moment as of which the data are.
        wall: the moment by the server's clock.
        progress: called after each chunk with how many events are folded, of how many.

    Returns:
        How many events were folded.

    Raises:
        NotReady: the states were never filled, or are gone.
        EventLogUnavailable, FeatureStoreUnavailable, DataError: as `Folder.fold`.
    """
    log.refresh()
    with log.folding():
        before = live.mark().folded
        return _fold(log, live, Reader(log.folder), now, wall, progress=progress) - before


def _fold(
    log: EventLog, live: LiveStates, reader: Reader, now: datetime, wall: datetime, *, most: int | None = None,
    progress: Progress | None = None, within_s: float = math.inf,
) -> int:  # fmt: skip
    upto, mark = log.last, live.mark(within_s)
    if not mark.source:
        raise NotReady("the online store holds no features: run `recsys materialize`")
    folded = mark.folded
    if folded > upto and (upto := log.refresh()) < folded:  # else another process added them
        raise DataError(f"{log.folder} was cut or exchanged: the online store knows {folded} events of it (got {upto})")
    total = upto - folded if most is None else min(upto - folded, most)
    events = reader.after(folded, folded + total)
    done = 0
    while part := [event.interaction() for event in islice(events, _CHUNK)]:
        fold_events(live, part, now=now, wall=wall)
        folded, done = part[-1].seq, done + len(part)
        live.set_mark(Mark(mark.source, folded))
        if progress is not None:
            progress(done, total)
    return folded
