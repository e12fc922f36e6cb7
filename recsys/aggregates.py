"""Behavioural features as SQL over history: one query a feature view, as of each midnight.

A row stamped t (a midnight, UTC) uses only events in […, t). Scaling to about [0, 1] is part of the definition, so
that history, Redis and the model hold the same numbers. `$start` and `$end` bound the midnights that get a row:
`$start < t <= $end`; the lake executes. Layouts of `stats`: `recsys.constants`.
"""

from collections.abc import Mapping
from typing import Final

from recsys.constants import POSITIVE_RATING

WINDOW_DAYS: Final = 28

# Rates of a newcomer count from the day they appeared, not over days on which they could not have acted.
_ACTIVE_DAYS: Final = f"least({WINDOW_DAYS}, greatest(1, date_diff('day', greatest(since, $start::DATE), t)))"


def _rolling(name: str, days: int) -> str:
    return (
        f"coalesce(sum({name}) OVER (PARTITION BY id ORDER BY t "
        f"RANGE BETWEEN INTERVAL {days - 1} DAYS PRECEDING AND CURRENT ROW), 0)"
    )


def _daily(entity: str, since: str, sums: Mapping[str, str]) -> str:
    """(id, t, since, sums of the day before t) for every entity and midnight from its first day on."""
    columns = ", ".join(f"{expression} AS {name}" for name, expression in sums.items())
    filled = ", ".join(f"coalesce({name}, 0) AS {name}" for name in sums)
    return f"""
    midnights AS (
        SELECT unnest(generate_series($start::DATE + 1, $end::DATE, INTERVAL 1 DAY))::DATE AS t
    ),
    entities AS (SELECT {entity}_id AS id, as_of::DATE AS since FROM {since}),
    -- a session: a part of a day (morning, afternoon, evening, night) with at least one event
    sums AS (
        SELECT {entity}_id AS id, "timestamp"::DATE + 1 AS t, {columns}
        FROM interactions WHERE "timestamp" < $end GROUP BY ALL
    ),
    daily AS (
        SELECT id, t, since, {filled}
        FROM entities JOIN midnights ON t > since LEFT JOIN sums USING (id, t)
    )"""


_USER_SUMS: Final = {
    "views": "count(*)",
    "sessions": "count(DISTINCT time_of_day_bucket)",
    "likes": "sum(num_likes)",
    "saves": "sum(num_saves)",
    "attends": "count(*) FILTER (attended)",
    "rating": "sum(implicit_rating)",
}
_PLACE_SUMS: Final = {
    "views": "count(*)",
    "attends": "count(*) FILTER (attended)",
    "positives": f"count(*) FILTER (implicit_rating >= {POSITIVE_RATING})",
    "rating": "sum(implicit_rating)",
}


def _windows(sums: Mapping[str, str], extra: Mapping[str, tuple[str, int]]) -> str:
    columns = {f"{name}_28": (name, WINDOW_DAYS) for name in sums} | dict(extra)
    return ", ".join(f"{_rolling(name, days)} AS {column}" for column, (name, days) in columns.items())


def _stamp(t: str = "t") -> str:
    return f"({t})::TIMESTAMP::TIMESTAMPTZ AS event_timestamp"


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
ORDER BY user_id
"""

PLACE_PROFILE: Final = """
SELECT place_id, name, city_id::BIGINT AS city_id, neighborhood_id::BIGINT AS neighborhood_id,
       category_one_hot, fine_tag_vector, price_band::BIGINT AS price_band,
       typical_time_slot::BIGINT AS typical_time_slot, as_of AS event_timestamp
FROM places ORDER BY place_id
"""

# seed, section 3.2.1: rates over fixed maxima; the two counts and the rating ride beside them
USER_ACTIVITY: Final = f"""
WITH {_daily("user", "users", _USER_SUMS)},
windows AS (
    SELECT id, t, {_ACTIVE_DAYS} AS days, {_windows(_USER_SUMS, {"views_7": ("views", 7)})} FROM daily
)
SELECT id AS user_id, {_stamp()}, [
    least(sessions_28 * 7.0 / days / 10, 1), least(views_28 / greatest(sessions_28, 1) / 100, 1),
    least(likes_28 / greatest(sessions_28, 1) / 10, 1), least(saves_28 / greatest(sessions_28, 1) / 10, 1),
    least(attends_28 * 30.0 / days / 20, 1), least(ln(1 + views_7) / 6, 1), least(ln(1 + views_28) / 6, 1),
    rating_28 / greatest(views_28, 1) / 5
]::FLOAT[] AS stats
FROM windows ORDER BY user_id, event_timestamp
"""

# seed, section 3.2.2, with totals replaced by rolling rates (amendment 10); conversion is smoothed by 20 views at 5 %
PLACE_ACTIVITY: Final = f"""
WITH {_daily("place", "places", _PLACE_SUMS)},
windows AS (
    SELECT id, t, {_ACTIVE_DAYS} AS days,
           {_windows(_PLACE_SUMS, {"views_1": ("views", 1), "views_7": ("views", 7)})}
    FROM daily
)
SELECT id AS place_id, {_stamp()}, [
    least(ln(1 + views_28 / days) / 5, 1), least(ln(1 + attends_28 / days) / 5, 1),
    (attends_28 + 1.0) / (views_28 + 20.0), 1 / (1 + ln(1 + views_28 / days)),
    least(ln(1 + views_1) / 6, 1), least(ln(1 + views_7) / 7, 1), least(ln(1 + positives_28) / 7, 1),
    rating_28 / greatest(views_28, 1) / 5
]::FLOAT[] AS stats
FROM windows ORDER BY place_id, event_timestamp
"""

# seed, section 3.2.3, one interaction at a time; a pair's edge is the mean of these so far
_ENCODED: Final = {
    "rating": "implicit_rating / 5.0",
    "dwell": "least(ln(1 + dwell_time) / 6.0, 1)",
    "likes": "least(num_likes / 5.0, 1)",
    "saves": "least(num_saves / 3.0, 1)",
    "shares": "least(num_shares / 2.0, 1)",
    "attended": "attended::INT",
    **{f"time_{i}": f"(time_of_day_bucket = {i})::INT" for i in range(4)},
    **{f"day_{i}": f"(day_of_week_bucket = {i})::INT" for i in range(2)},
}
USER_PLACE: Final = f"""
WITH daily AS (
    SELECT user_id, place_id, "timestamp"::DATE + 1 AS t, count(*) AS n, epoch_us(max("timestamp")) AS last_at_us,
           {", ".join(f"sum({expression}) AS {name}" for name, expression in _ENCODED.items())}
    FROM interactions WHERE "timestamp" >= $start AND "timestamp" < $end GROUP BY ALL
)
SELECT user_id, place_id, {_stamp()},
       [{", ".join(f"sum({name}) OVER so_far / sum(n) OVER so_far" for name in _ENCODED)}]::FLOAT[] AS stats,
       (sum(n) OVER so_far)::BIGINT AS count, last_at_us
FROM daily
WINDOW so_far AS (PARTITION BY user_id, place_id ORDER BY t)
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

# seed, section 3.2.4, with the total of co-attendances replaced by the count so far (amendment 10)
USER_USER: Final = f"""
WITH {TOGETHER},
changes AS (
    SELECT user_u, user_v, as_of AS t, 0 AS n FROM user_user_edges
    UNION ALL
    SELECT user_u, user_v, greatest((day + 1)::TIMESTAMP::TIMESTAMPTZ, as_of), count(*)
    FROM together JOIN user_user_edges USING (user_u, user_v) GROUP BY ALL
),
counted AS (SELECT user_u, user_v, t, sum(n) AS n FROM changes GROUP BY ALL)
SELECT user_u, user_v, t AS event_timestamp,
       [interest_overlap_score, least(sum(n) OVER so_far / 10.0, 1), same_neighborhood_freq]::FLOAT[] AS stats
FROM counted JOIN user_user_edges USING (user_u, user_v)
WINDOW so_far AS (PARTITION BY user_u, user_v ORDER BY t)
ORDER BY event_timestamp, user_u, user_v
"""

VIEWS: Final[Mapping[str, str]] = {
    "user_profile": USER_PROFILE,
    "user_activity": USER_ACTIVITY,
    "place_profile": PLACE_PROFILE,
    "place_activity": PLACE_ACTIVITY,
    "user_place": USER_PLACE,
    "user_user": USER_USER,
}
