"""Events of one pair at one moment: one that was sent twice, or two that the clock is too coarse to tell apart."""

from typing import Final

from recsys.ingest.mapping import Mapping
from recsys.workbench import Workbench

_COARSE_US: Final = 60_000_000  # a clock that only ever shows whole minutes tells no two visits of a minute apart
_SAME: Final = "source, user, place, ts, kind"


def tell_apart(bench: Workbench, mapping: Mapping) -> int:
    """Move the second, third, … visit of a pair at one moment on by 1, 2, … microseconds, where repeats count.

    A row of `interactions` is a pair and a moment, so what is not told apart here becomes one row: right for an event
    that was sent twice, a lost visit where times are whole hours. `[source.events] repeats` says which it is; unsaid,
    they count where all moments of the source are whole minutes. Likes, saves and shares belong to the visit of their
    moment and stay there; the hour and the weekday are read from `local`, which stays too.

    Args:
        bench: has `events`, whose `ts` is changed.
        mapping: says of each source what a repeat is.

    Returns:
        How many events were moved on.
    """
    clocks = bench.rows(f"SELECT source, bool_and(epoch_us(ts) % {_COARSE_US} = 0) AS coarse FROM events GROUP BY ALL")
    counting = [
        str(clock["source"])
        for clock in clocks
        if mapping.source[clock["source"]].events.repeats == "count"
        or (mapping.source[clock["source"]].events.repeats is None and clock["coarse"])
    ]
    if not counting:
        return 0
    visits = f"source IN ({', '.join(counting)}) AND kind IN ('view', 'attended')"
    bench.run(f"CREATE TABLE repeated AS SELECT {_SAME} FROM events WHERE {visits} GROUP BY ALL HAVING count(*) > 1")
    bench.run(
        "CREATE TABLE moved AS SELECT * FROM (SELECT e.rowid AS at, row_number() OVER (PARTITION BY "
        f"{_SAME} ORDER BY dwell, rating, category, latitude, longitude) - 1 AS steps "
        f"FROM events e SEMI JOIN repeated USING ({_SAME})) WHERE steps > 0"
    )
    bench.run("UPDATE events SET ts = ts + to_microseconds(moved.steps) FROM moved WHERE events.rowid = moved.at")
    return int(bench.one("SELECT count(*) FROM moved"))
