"""Events of the log as rows of `interactions`."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

import pyarrow as pa

from recsys.events.event import Event
from recsys.events.log import EventLog
from recsys.schemas import INTERACTIONS

_ROWS: Final = 100_000
_LOGGED: Final = [pa.field("seq", pa.int64()), pa.field("id", pa.string()), pa.field("kind", pa.string())]
_SCHEMA: Final = pa.schema([*INTERACTIONS.arrow, *_LOGGED])


def landable(log: EventLog, after: int) -> pa.Table:
    """The events after a position, in order.

    Args:
        log: all that is in it counts, whoever wrote it.
        after: position in the log.

    Returns:
        The columns of `interactions`, and of each event its position `seq`, its `id` and its `kind`.

    Raises:
        DataError: an event is missing or damaged.
        EventLogUnavailable: another process holds the log.
    """
    log.refresh()
    events, batches = log.read(after), []
    while part := list(islice(events, _ROWS)):
        batches.append(_batch(part))
    return pa.Table.from_batches(batches, _SCHEMA)


def _batch(events: Sequence[Event]) -> pa.RecordBatch:
    rows = [event.interaction() for event in events]
    columns = {
        "user_id": [row.user_id for row in rows],
        "place_id": [row.place_id for row in rows],
        "dwell_time": [row.dwell_time for row in rows],
        "num_likes": [row.num_likes for row in rows],
        "num_saves": [row.num_saves for row in rows],
        "num_shares": [row.num_shares for row in rows],
        "attended": [row.attended for row in rows],
        "implicit_rating": [row.rating for row in rows],
        "timestamp": [row.at_us for row in rows],
        "time_of_day_bucket": [row.time_of_day for row in rows],
        "day_of_week_bucket": [row.day_of_week for row in rows],
        "seq": [row.seq for row in rows],
        "id": [event.id for event in events],
        "kind": [event.kind for event in events],
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in _SCHEMA], schema=_SCHEMA)
