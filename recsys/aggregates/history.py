"""States as SQL over history: one query a feature view, a row on every day that changed something.

A row is stamped with the midnight (UTC) after its day, or with `$end` where that is sooner, and uses only events
strictly before that. Parameters: `$start`, midnight at which the data begin; `$after`, only rows stamped later are made
(`$start`: all of them); `$end`, nothing from then on is known. So rows stamped up to a moment never depend on what came
after it, and a job that knows the earliest moment that changed makes only the rows after it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from recsys.aggregates.definitions import (
    PAIR_TTL,
    PLACE_COUNTERS,
    RECENT_PLACES,
    USER_COUNTERS,
    USER_PLACE,
    WINDOW_DAYS,
    Counter,
)


def stamp(day: str = "day") -> str:
    """The moment from which on a day's events are in a row: the midnight after it, or the end of what is known."""
    return f"least(({day} + 1)::TIMESTAMP::TIMESTAMPTZ, $end)"


def _days(day: str) -> str:
    """A date as days since the epoch."""
    return f"date_diff('day', DATE '1970-01-01', {day})::DOUBLE"


def _sums(counters: tuple[Counter, ...]) -> str:
    return ", ".join(f"sum({c.sql}) AS c_{i}" for i, c in enumerate(counters))


def _activity(entity: str, counters: tuple[Counter, ...]) -> str:
    """[seq, last_at_us, since_day, then (day, counters) for each of the last days with events]; seq is 0 in history."""
    tile = ", ".join([_days("day"), *(f"c_{i}" for i in range(len(counters)))])
    return f"""
WITH daily AS (
    SELECT {entity}_id AS id, "timestamp"::DATE AS day, epoch_us(max("timestamp"))::DOUBLE AS last_at_us,
           {_sums(counters)}
    FROM interactions
    WHERE "timestamp" >= $after::DATE - {WINDOW_DAYS + 1} AND "timestamp" < $end GROUP BY ALL
),
tiled AS (
    SELECT id, day, last_at_us, flatten(list([{tile}]) OVER (
        PARTITION BY id ORDER BY day RANGE BETWEEN INTERVAL {WINDOW_DAYS} DAYS PRECEDING AND CURRENT ROW
    )) AS tiles
    FROM daily
),
entities AS (
    SELECT {entity}_id AS id, as_of::DATE AS day, greatest(as_of::DATE, $start::DATE) AS since,
           epoch_us(as_of)::DOUBLE AS last_at_us
    FROM {entity}s WHERE as_of < $end
),
rows AS (
    SELECT t.id, t.day, t.last_at_us, e.since, t.tiles FROM tiled t JOIN entities e USING (id)
    UNION ALL  -- from the day they appear, somebody is known to have done nothing yet
    SELECT id, day, last_at_us, since, []::DOUBLE[] FROM entities e ANTI JOIN daily USING (id, day)
)
SELECT id AS {entity}_id, {stamp()} AS event_timestamp,
       list_concat([0, last_at_us, {_days("since")}]::DOUBLE[], tiles) AS state
FROM rows WHERE {stamp()} > $after OR $after = $start
ORDER BY event_timestamp, id
"""


USER_PROFILE: Final = """
SELECT user_id, name, home_city_id::BIGINT AS home_city_id, home_neighborhood_id::BIGINT AS home_neighborhood_id,
       cat_pref, fine_pref, vibe_pref,
       list_transform(areas, lambda e: e.key::BIGINT) AS area_ids,
       list_transform(areas, lambda e: e.value::FLOAT) AS area_weights,
       as_of AS event_timestamp
FROM (
    SELECT *, list_reverse_sort(list_transform(map_entries(area_freqs),
                  lambda e: {'value': e.value, 'first': -e.key, 'key': e.key})) AS areas
    FROM users
)
ORDER BY event_timestamp, user_id
"""

PLACE_PROFILE: Final = """
SELECT place_id, name, city_id::BIGINT AS city_id, neighborhood_id::BIGINT AS neighborhood_id,
       category_one_hot, fine_tag_vector, price_band::BIGINT AS price_band,
       typical_time_slot::BIGINT AS typical_time_slot, as_of AS event_timestamp
FROM places ORDER BY event_timestamp, place_id
"""

USER_ACTIVITY: Final = _activity("user", USER_COUNTERS)
PLACE_ACTIVITY: Final = _activity("place", PLACE_COUNTERS)

# [seq, then (place_id, at_us) of the last visits and views, newest first]
USER_RECENT: Final = f"""
WITH visits AS (
    SELECT user_id, list([place_id::DOUBLE, epoch_us("timestamp")::DOUBLE]
                         ORDER BY "timestamp" DESC, place_id DESC) AS all
    FROM interactions WHERE "timestamp" < $end GROUP BY ALL
),
daily AS (
    SELECT user_id, "timestamp"::DATE AS day, count(*) AS n FROM interactions WHERE "timestamp" < $end GROUP BY ALL
),
counted AS (SELECT user_id, day, (sum(n) OVER (PARTITION BY user_id ORDER BY day))::BIGINT AS n FROM daily)
SELECT user_id, {stamp()} AS event_timestamp, list_concat([0]::DOUBLE[], flatten(
           list_slice("all", len("all") - n + 1, len("all") - n + {RECENT_PLACES}))) AS state
FROM counted JOIN visits USING (user_id) WHERE {stamp()} > $after OR $after = $start
ORDER BY event_timestamp, user_id
"""


def _pair(window: str) -> str:
    """[seq, count, last_at_us, then the sums of the seed's encoding, section 3.2.3] over a window of days."""
    sums = ", ".join(f"sum({c}) OVER {window}" for c in (f"c_{i}" for i in range(len(USER_PLACE))))
    return f"[0, sum(n) OVER {window}, last_at_us, {sums}]::DOUBLE[]"


# `so_far` is the edge of the graph; `state`, what ranking reads, begins anew after a silence of more than PAIR_TTL
USER_PLACE_STATE: Final = f"""
WITH touched AS (
    SELECT DISTINCT user_id, place_id FROM interactions WHERE "timestamp" >= $after::DATE - 1 AND "timestamp" < $end
),
daily AS (
    SELECT user_id, place_id, "timestamp"::DATE AS day, count(*)::DOUBLE AS n,
           epoch_us(min("timestamp")) AS first_at_us, epoch_us(max("timestamp"))::DOUBLE AS last_at_us,
           {_sums(USER_PLACE)}
    FROM interactions SEMI JOIN touched USING (user_id, place_id) WHERE "timestamp" < $end GROUP BY ALL
),
silences AS (
    SELECT *, first_at_us - lag(last_at_us) OVER (PARTITION BY user_id, place_id ORDER BY day)
              > {PAIR_TTL // timedelta(microseconds=1)} AS silent
    FROM daily
),
parted AS (
    SELECT *, count(CASE WHEN silent THEN 1 END) OVER (PARTITION BY user_id, place_id ORDER BY day) AS part
    FROM silences
)
SELECT user_id, place_id, event_timestamp, state, so_far FROM (
    SELECT user_id, place_id, {stamp()} AS event_timestamp, {_pair("lately")} AS state, {_pair("ever")} AS so_far
    FROM parted
    WINDOW lately AS (PARTITION BY user_id, place_id, part ORDER BY day),
           ever AS (PARTITION BY user_id, place_id ORDER BY day)
) WHERE event_timestamp > $after OR $after = $start
ORDER BY event_timestamp, user_id, place_id
"""

# Two people attended together when both attended the same place on the same day.
TOGETHER: Final = """
    attended AS (
        SELECT user_id, place_id, "timestamp"::DATE AS day,
               min(time_of_day_bucket) AS time_of_day, min(day_of_week_bucket) AS day_of_week
        FROM interactions WHERE attended AND "timestamp" >= $start AND "timestamp" < $end GROUP BY ALL
    ),
    together AS (
        SELECT a.user_id AS user_u, b.user_id AS user_v, a.place_id, a.day, a.time_of_day, a.day_of_week
        FROM attended a JOIN attended b USING (place_id, day) WHERE a.user_id < b.user_id
    )"""

# (user_u, user_v, t, n) of a tie: when it begins, and how often the two met on a day
MEETINGS: Final = f"""
    SELECT user_u, user_v, as_of AS t, 0 AS n FROM user_user_edges WHERE as_of <= $end
    UNION ALL
    SELECT user_u, user_v, greatest({stamp()}, as_of), count(*)
    FROM together JOIN user_user_edges USING (user_u, user_v) WHERE as_of <= $end GROUP BY ALL"""

# [seq, met, interest_overlap, same_neighborhood]: seed, section 3.2.4, with the total of co-attendances replaced by
# the count so far (amendment 10)
USER_USER: Final = f"""
WITH {TOGETHER},
changes AS (
    {MEETINGS}
),
counted AS (SELECT user_u, user_v, t, sum(n) AS n FROM changes GROUP BY ALL)
SELECT user_u, user_v, t AS event_timestamp,
       [0, sum(n) OVER so_far, interest_overlap_score, same_neighborhood_freq]::DOUBLE[] AS state
FROM counted JOIN user_user_edges USING (user_u, user_v)
WINDOW so_far AS (PARTITION BY user_u, user_v ORDER BY t)
ORDER BY event_timestamp, user_u, user_v
"""

VIEWS: Final[Mapping[str, str]] = {
    "user_profile": USER_PROFILE,
    "user_activity": USER_ACTIVITY,
    "user_recent": USER_RECENT,
    "place_profile": PLACE_PROFILE,
    "place_activity": PLACE_ACTIVITY,
    "user_place": USER_PLACE_STATE,
    "user_user": USER_USER,
}
