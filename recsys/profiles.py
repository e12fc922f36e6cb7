"""Profiles derived from events, for data that say nothing of tastes, haunts and hours: as SQL, as of each Monday.

A row stamped t uses only events strictly before t: a profile changes on the Monday after a week in which somebody went
somewhere. A week that is not over changes nothing, or its row would move as days are added. Weights are counts so far
with one uniform visit added (Laplace), so that a newcomer's are those of the landed row and all sum to 1.
"""

from collections.abc import Mapping
from typing import Any, Final

from recsys.aggregates import TOGETHER, VIEWS
from recsys.aggregates.history import MEETINGS
from recsys.constants import MAX_NEIGHBORHOODS_PER_USER, N_TIME_SLOTS, SLOT_BY_DAY_AND_TIME

_WEEKLY: Final = """(date_trunc('week', "timestamp") + INTERVAL 7 DAYS)::DATE"""  # the Monday after an event
_OVER: Final = """ "timestamp" < date_trunc('week', $end)"""  # events of weeks that are over
_REFRESH_DAYS: Final = 28  # ties between users are looked at anew after so many days, and whenever they meet


def _vector(counts: str, total: str, size: str) -> str:
    """Counts by position (a map) → weights that sum to 1."""
    smoothed = f"(coalesce({counts}[i], 0) + 1.0 / {size}) / ({total} + 1.0)"
    return f"list_transform(range({size}), lambda i: {smoothed})::FLOAT[]"


def _so_far(name: str, column: str) -> str:
    """(user_id, t, counts so far as a map from `column` to visits) of every user and week in which they went out."""
    table = f"by_{name}"
    return f"""
    {table} AS (
        SELECT user_id, t, {column} AS position, sum(n * weight) AS n FROM visits JOIN {name}_of USING (place_id)
        GROUP BY ALL
    ),
    {name}_so_far AS (
        SELECT user_id, t, map(list(position), list(n)) AS {name}_counts, sum(n) AS {name}_total FROM (
            SELECT w.user_id, w.t, c.position, sum(c.n) AS n
            FROM weeks w JOIN {table} c ON c.user_id = w.user_id AND c.t <= w.t GROUP BY ALL
        ) GROUP BY ALL
    )"""


def _positions(name: str, column: str) -> str:
    """(place_id, position, weight) of what a place's vector holds."""
    return f"""
    {name}_of AS (
        SELECT place_id, held.position, held.weight FROM (
            SELECT place_id, unnest(list_transform(range(len({column})),
                       lambda i: {{'position': i, 'weight': {column}[i + 1]}})) AS held
            FROM places
        ) WHERE held.weight > 0
    )"""


USER_PROFILE: Final = f"""
WITH visits AS (
    SELECT user_id, place_id, {_WEEKLY} AS t, count(*) AS n FROM interactions WHERE {_OVER} GROUP BY ALL
),
weeks AS (SELECT DISTINCT user_id, t FROM visits),
{_positions("tag", "fine_tag_vector")},
{_positions("category", "category_one_hot")},
area_of AS (SELECT place_id, neighborhood_id AS position, 1 AS weight, city_id FROM places),
{_so_far("tag", "position")},
{_so_far("category", "position")},
areas_so_far AS (
    SELECT w.user_id, w.t, a.position AS area, sum(v.n) AS n
    FROM weeks w JOIN visits v ON v.user_id = w.user_id AND v.t <= w.t JOIN area_of a USING (place_id)
    JOIN users u ON u.user_id = w.user_id WHERE a.city_id = u.home_city_id GROUP BY ALL
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY user_id, t ORDER BY n DESC, area) AS rank FROM areas_so_far
),
haunts AS (
    SELECT user_id, t, list(area::BIGINT ORDER BY rank) AS ids, list(n ORDER BY rank) AS counts, sum(n) AS total
    FROM ranked WHERE rank <= {MAX_NEIGHBORHOODS_PER_USER} GROUP BY ALL
)
SELECT user_id, name, home_city_id::BIGINT AS home_city_id, home_neighborhood_id::BIGINT AS home_neighborhood_id,
       cat_pref, fine_pref, vibe_pref, map_keys(area_freqs)::BIGINT[] AS area_ids,
       map_values(area_freqs)::FLOAT[] AS area_weights, as_of AS event_timestamp
FROM users
UNION ALL
SELECT u.user_id, u.name, u.home_city_id::BIGINT, coalesce(h.ids[1], u.home_neighborhood_id)::BIGINT,
       {_vector("c.category_counts", "c.category_total", "len(u.cat_pref)")},
       {_vector("g.tag_counts", "g.tag_total", "len(u.fine_pref)")},
       u.vibe_pref, coalesce(h.ids, [0]::BIGINT[]),
       coalesce(list_transform(h.counts, lambda n: n / h.total), [1.0])::FLOAT[], w.t::TIMESTAMP::TIMESTAMPTZ
FROM weeks w JOIN users u USING (user_id) JOIN tag_so_far g USING (user_id, t)
JOIN category_so_far c USING (user_id, t) LEFT JOIN haunts h USING (user_id, t)
WHERE w.t::TIMESTAMP::TIMESTAMPTZ > u.as_of
ORDER BY event_timestamp, user_id
"""

# A place's typical time is the slot of most of its visits so far; a row only where that changes.
PLACE_PROFILE: Final = f"""
WITH seen AS (
    SELECT place_id, {_WEEKLY} AS t,
           ({[list(d) for d in SLOT_BY_DAY_AND_TIME]})[day_of_week_bucket + 1][time_of_day_bucket + 1] AS slot,
           count(*) AS n
    FROM interactions WHERE {_OVER} GROUP BY ALL
),
weekly AS (
    SELECT place_id, t, {", ".join(f"coalesce(sum(n) FILTER (slot = {s}), 0) AS s{s}" for s in range(N_TIME_SLOTS))}
    FROM seen GROUP BY ALL
),
so_far AS (
    SELECT place_id, t, [{", ".join(f"sum(s{s}) OVER w" for s in range(N_TIME_SLOTS))}] AS counts FROM weekly
    WINDOW w AS (PARTITION BY place_id ORDER BY t)
),
typical AS (SELECT place_id, t, list_position(counts, list_max(counts)) - 1 AS slot FROM so_far),
changed AS (
    SELECT * FROM typical QUALIFY slot IS DISTINCT FROM lag(slot) OVER (PARTITION BY place_id ORDER BY t)
)
SELECT place_id, name, city_id::BIGINT AS city_id, neighborhood_id::BIGINT AS neighborhood_id, category_one_hot,
       fine_tag_vector, price_band::BIGINT AS price_band, typical_time_slot::BIGINT AS typical_time_slot,
       as_of AS event_timestamp
FROM places
UNION ALL
SELECT p.place_id, p.name, p.city_id::BIGINT, p.neighborhood_id::BIGINT, p.category_one_hot, p.fine_tag_vector,
       p.price_band::BIGINT, c.slot::BIGINT, c.t::TIMESTAMP::TIMESTAMPTZ
FROM changed c JOIN places p USING (place_id) WHERE c.t::TIMESTAMP::TIMESTAMPTZ > p.as_of
ORDER BY event_timestamp, place_id
"""

# As aggregates.history.USER_USER, with the likeness of both as their profiles stood at that moment.
USER_USER: Final = f"""
WITH {TOGETHER},
changes AS (
    {MEETINGS}
    UNION ALL
    SELECT user_u, user_v, m::TIMESTAMP::TIMESTAMPTZ, 0
    FROM user_user_edges, (SELECT unnest(generate_series($start::DATE, $end::DATE, INTERVAL {_REFRESH_DAYS} DAY)) AS m)
    WHERE m::TIMESTAMP::TIMESTAMPTZ > as_of
),
counted AS (SELECT user_u, user_v, t, sum(n) AS n FROM changes GROUP BY ALL),
met AS (
    SELECT user_u, user_v, t, sum(n) OVER (PARTITION BY user_u, user_v ORDER BY t) AS n FROM counted
)
SELECT m.user_u, m.user_v, m.t AS event_timestamp, [
    0, m.n, coalesce(greatest(list_cosine_similarity(a.fine_pref::DOUBLE[], b.fine_pref::DOUBLE[]), 0), 0),
    CASE WHEN a.home_city_id = b.home_city_id AND a.event_timestamp IS NOT NULL THEN
        len(list_intersect(a.area_ids, b.area_ids))
        / greatest(len(list_distinct(list_concat(a.area_ids, b.area_ids))), 1)
    ELSE 0 END
]::DOUBLE[] AS state
FROM met m ASOF LEFT JOIN user_profile a ON a.user_id = m.user_u AND a.event_timestamp <= m.t
ASOF LEFT JOIN user_profile b ON b.user_id = m.user_v AND b.event_timestamp <= m.t
ORDER BY event_timestamp, user_u, user_v
"""

_DERIVED: Final[Mapping[str, str]] = {
    "user_profile": USER_PROFILE,
    "place_profile": PLACE_PROFILE,
    "user_user": USER_USER,
}


def views(source: Mapping[str, Any]) -> Mapping[str, str]:
    """The query of every feature view, for data that come with profiles or whose profiles are derived.

    Args:
        source: what `source.json` says; `derived` is true where profiles are.
    """
    return {**VIEWS, **_DERIVED} if source.get("derived") else VIEWS
