"""What an app tells us of its users: from a request's fields to the log, and what is not taken, event by event."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from api.schemas import EventIn, EventRejected
from api.state import State
from recsys.aggregates.states import Ints
from recsys.errors import InvalidField, NotFound, UnknownPlace, UnknownUser
from recsys.events import Event, Receipt
from recsys.recommend.engine import Engine
from recsys.recommend.reads import Reads

_NOTHING: Final = Receipt(0, 0, online=True)


@dataclass(frozen=True)
class Told:
    """What became of a request: of the events that were taken, and of those that were not."""

    receipt: Receipt
    rejected: list[EventRejected]


async def take(state: State, told: Sequence[EventIn]) -> Told:
    """Take the events of a request.

    Args:
        state: the live version and its event log.
        told: 1 or more.

    Returns:
        The receipt, and which of several events were not taken; the others were.

    Raises:
        UnknownUser, UnknownPlace, InvalidField: the only event is not taken.
        Unavailable: the log did not take them in time; none is in it, or sending them again counts once.
    """
    engine, intake, now = state.require(), state.require_events(), state.now()
    events: dict[int, Event] = {}
    refused: dict[int, NotFound | InvalidField] = {}
    for i, event in enumerate(told):
        try:
            events[i] = _event(engine, event, now)
        except (NotFound, InvalidField) as error:
            refused[i] = error
    refused |= await _strangers(state, engine, events, now)
    if len(told) == 1 and refused:
        only = refused[0]
        raise InvalidField(f"events.0.{only.field}", only.message) if isinstance(only, InvalidField) else only
    taken = [event for i, event in events.items() if i not in refused]
    receipt = await intake.submit(taken) if taken else _NOTHING
    rejected = [EventRejected(index=i, id=told[i].id, reason=str(refused[i])) for i in sorted(refused)]
    return Told(receipt, rejected)


def _event(engine: Engine, told: EventIn, now: datetime) -> Event:
    return Event.made(
        id=told.id,
        kind=told.kind,
        user_id=engine.users.number("user_id", told.user_id),
        place_id=engine.places.number("place_id", told.place_id),
        moment=told.timestamp,
        dwell_s=told.dwell_seconds,
        now=now,
    )


async def _strangers(
    state: State, engine: Engine, events: dict[int, Event], now: datetime
) -> dict[int, NotFound | InvalidField]:
    """Events of users or places that are neither of the live version nor, since, in the feature store."""
    users = _missing((e.user_id for e in events.values()), state.known_users)
    places = _missing((e.place_id for e in events.values()), state.known_places)
    reads = Reads(engine, now, strict=True)
    if users:
        rows = await asyncio.to_thread(reads.users, users)
        users = [user for user, row in zip(users, rows, strict=True) if row is None]
    if places:
        found = await asyncio.to_thread(reads.places, places)
        places = [place for place, row in zip(places, found, strict=True) if row is None]
    nobody, nowhere = set(users), set(places)
    refused: dict[int, NotFound | InvalidField] = {}
    for i, event in events.items():
        if event.user_id in nobody:
            refused[i] = UnknownUser(f"there is no user {event.user_id}")
        elif event.place_id in nowhere:
            refused[i] = UnknownPlace(f"there is no place {event.place_id}")
    return refused


def _missing(ids: Iterable[int], known: Ints) -> list[int]:
    """Those of some ids that are not among sorted ones."""
    asked = np.unique(np.fromiter(ids, dtype=np.int64))
    if not len(known):
        return [int(i) for i in asked]
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return [int(i) for i in asked[known[at] != asked]]
