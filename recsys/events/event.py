"""One thing that somebody did, as the log keeps it: a line of JSON, from which a row of `interactions` is made."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, Self, get_args

import numpy as np

from recsys.aggregates import Interaction
from recsys.constants import TIME_OF_DAY_BY_HOUR, VIEW_SECONDS, VISIT_SECONDS
from recsys.errors import DataError, InvalidField
from recsys.schemas import implicit_rating

Kind = Literal["view", "like", "save", "share", "attend"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
AHEAD: Final = timedelta(minutes=5)  # how far the clocks of those who send may be ahead of ours
LATE: Final = timedelta(days=90)  # an event that is older counts in no feature
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the log, field by field.

    Attributes:
        id: whoever sends it twice under one id means one event.
        at_us: when it happened, microseconds since the epoch.
        received_us: when it arrived, by the same clock.
        dwell_s: seconds, a float32 value as in the table.
        time_of_day, day_of_week: buckets of the local time.
        seq: position in the log, from 1; 0 before it is there.
    """

    id: str
    kind: Kind
    user_id: int
    place_id: int
    at_us: int
    received_us: int
    dwell_s: float
    time_of_day: int
    day_of_week: int
    seq: int = 0

    @classmethod
    def made(
        cls, *, id: str, kind: Kind, user_id: int, place_id: int, moment: datetime | None, dwell_s: float | None,
        now: datetime,
    ) -> Self:  # fmt: skip
        """An event as it arrives.

        Args:
            id, kind, user_id, place_id: as they were said.
            moment: when, with the offset of the local time; None: now. A moment that is a little ahead of now is now.
            dwell_s: how long, seconds; None: as long as ingest takes an event of this kind to last.
            now: what the service believes.

        Raises:
            InvalidField: `timestamp` is too far ahead, or too old to count.
        """
        when = now if moment is None else moment
        if when > now + AHEAD:
            limit = f"at most {AHEAD.seconds // 60} minutes after now, {now.isoformat(timespec='seconds')}"
            raise InvalidField("timestamp", f"must be {limit} (got {when.isoformat()})")
        if when < now - LATE:
            raise InvalidField("timestamp", f"must be at most {LATE.days} days ago (got {when.isoformat()})")
        local = min(when, now).astimezone(when.tzinfo)
        if dwell_s is None:
            dwell_s = VISIT_SECONDS if kind == "attend" else VIEW_SECONDS
        return cls(
            id=id,
            kind=kind,
            user_id=user_id,
            place_id=place_id,
            at_us=(local - _EPOCH) // _MICROSECOND,
            received_us=(now - _EPOCH) // _MICROSECOND,
            dwell_s=float(np.float32(dwell_s)),
            time_of_day=TIME_OF_DAY_BY_HOUR[local.hour],
            day_of_week=int(local.weekday() >= 5),
        )

    @classmethod
    def read(cls, line: bytes) -> Self:
        """A line of the log.

        Raises:
            DataError: it is none.
        """
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(f"a line of the event log must be one event (got {line[:80]!r})") from error

    def interaction(self) -> Interaction:
        """The row of `interactions` that this event is."""
        kind = self.kind
        return Interaction(
            self.user_id, self.place_id, self.at_us, self.dwell_s, int(kind == "like"), int(kind == "save"),
            int(kind == "share"), kind == "attend", _rating(kind, self.dwell_s), self.time_of_day, self.day_of_week,
            self.seq,
        )  # fmt: skip


@lru_cache(maxsize=65_536)
def _rating(kind: Kind, dwell_s: float) -> float:
    return float(implicit_rating(dwell_s, kind == "like", kind == "save", kind == "share", kind == "attend"))
