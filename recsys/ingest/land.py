"""What was read → the five tables of the contract, with a taxonomy of their own, in one folder that appears whole.

Facts only: nothing here is computed from events after the moment that a row claims to be known from. What is missing
and can be learned from events (tastes, haunts, hours) is derived as of each week when features are made.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys.atomic import replacing_folder, write_json
from recsys.constants import SLOT_BY_DAY_AND_TIME, TIME_OF_DAY_BY_HOUR, VIEW_SECONDS, VISIT_SECONDS
from recsys.errors import DataError
from recsys.ingest.derive import make_areas, make_taxonomy
from recsys.ingest.ids import number
from recsys.ingest.mapping import Mapping
from recsys.ingest.read import NAMES, ingested, read_sources
from recsys.ingest.repeats import tell_apart
from recsys.schemas import TABLES
from recsys.workbench import Workbench, text

Progress = Callable[[str], None]

_REVEALED: Final = 5  # one friendship in so many, of those known from the start, is taken to begin during the period


@dataclass(frozen=True)
class Landed:
    """What an ingest laid down: rows read and written, new ids, first and last moment.

    `told_apart`: visits that repeat another's pair and moment and count; `merged`: events that share another's row.
    """

    figures: dict[str, Any]


def land(
    mapping: Mapping, bench: Workbench, landing: Path, ids: Path, quarantine: Path, *, now: datetime | None = None,
    progress: Progress | None = None,
) -> Landed:  # fmt: skip
    """Read a mapping's sources and lay them down as the five tables.

    Args:
        mapping: which files and columns.
        bench: an empty workbench.
        landing: the folder that the tables replace, in one step.
        ids: where the numbers of ids are kept.
        quarantine: where rows go that cannot be told apart or dated.
        now: events after it are rejected; None: any moment will do.
        progress: called with the name of what comes next.

    Raises:
        ConfigError, DataError: see `read_sources`; or no event is left.
    """
    say = progress or (lambda _: None)
    say("read")
    read_sources(bench, mapping, now)
    figures: dict[str, Any] = {"read": ingested(bench)}
    rejects = quarantine / "ingest.parquet"
    rejects.unlink(missing_ok=True)
    if figures["read"]["rejects"]:
        bench.write("SELECT * FROM rejects ORDER BY source, section, file, row", rejects)
    if not figures["read"]["events"]:
        raise DataError(f"no event is left: {figures['read']['rejects']:,} rows were rejected (see {rejects})")
    figures["told_apart"] = tell_apart(bench, mapping)
    say("number ids")
    _sources(bench, mapping)
    figures["new_ids"] = _number(bench, ids)
    say("derive")
    taxonomy = make_taxonomy(bench, mapping)
    areas = make_areas(bench)
    start, end = _horizon(bench)
    with replacing_folder(landing) as folder:
        for name, query in (
            ("places", _PLACES),
            ("users", _USERS),
            ("interactions", _INTERACTIONS),
            ("user_user_edges", _EDGES),
            ("friend_labels", _LABELS),
        ):
            say(name)
            for statement in query.split(";\n")[:-1]:
                bench.run(_filled(statement, taxonomy, start, end))
            columns = ", ".join(f'"{c}"' for c in TABLES[name].columns)
            order = ", ".join(f'"{k}"' for k in TABLES[name].key)
            figures[name] = bench.write(
                f"SELECT {columns} FROM new_{name} ORDER BY {order}", folder / f"{name}.parquet"
            )
        figures["merged"] = figures["read"]["events"] - figures["interactions"]
        (folder / "taxonomy.json").write_text(json.dumps(taxonomy, indent=2) + "\n", encoding="utf-8")
        source = {
            "synthetic": False,
            "name": mapping.name,
            "start": start.isoformat(),
            "end": end.isoformat(),
            "cities": int(bench.one("SELECT count(*) FROM cities_ids")),
            "neighborhoods": areas,
            "local_time": True,
            "derived": True,
        }
        write_json(folder / "source.json", source)
    return Landed(figures | {"start": start.isoformat(), "end": end.isoformat(), "tags": len(taxonomy["tags"])})


def _sources(bench: Workbench, mapping: Mapping) -> None:
    rows = [{"source": i, "name": s.name, "city": s.city} for i, s in enumerate(mapping.source)]
    bench.take("sources", pa.Table.from_pylist(rows))


def _number(bench: Workbench, ids: Path) -> dict[str, int]:
    new = {"cities": number(bench, "cities", "SELECT DISTINCT '' AS source, city AS source_id FROM sources", ids)}
    everyone = (
        "SELECT source, user AS id FROM events UNION SELECT source, user FROM users "
        "UNION SELECT source, a FROM friendships UNION SELECT source, b FROM friendships"
    )
    everywhere = "SELECT source, place AS id FROM events UNION SELECT source, place FROM places"
    for kind, query in (("users", everyone), ("places", everywhere)):
        one = kind[:-1]
        bench.run(f"CREATE TABLE {kind}_found AS SELECT s.*, q.id FROM ({query}) q JOIN sources s USING (source)")
        new[kind] = number(bench, kind, f"SELECT name AS source, id AS source_id FROM {kind}_found", ids)
        # who has a number from an earlier run and is not in these files is not there
        bench.run(
            f"CREATE TABLE {one}_of AS SELECT f.source, f.id AS {one}, i.id, c.id AS city, f.city AS city_name "
            f"FROM {kind}_found f JOIN {kind}_ids i ON i.source = f.name AND i.source_id = f.id "
            "JOIN cities_ids c ON c.source_id = f.city"
        )
    return new


def _horizon(bench: Workbench) -> tuple[datetime, datetime]:
    row = bench.rows(
        "SELECT date_trunc('day', min(ts)) AS start, date_trunc('day', max(ts)) + INTERVAL 1 DAY AS stop FROM events"
    )[0]
    return row["start"], row["stop"]


def _filled(statement: str, taxonomy: dict[str, Any], start: datetime, end: datetime) -> str:
    values = {
        "C": len(taxonomy["categories"]),
        "T": len(taxonomy["tags"]),
        "V": len(taxonomy["vibes"]),
        "START": f"{text(start.isoformat())}::TIMESTAMPTZ",
        "END": f"{text(end.isoformat())}::TIMESTAMPTZ",
        "HOURS": list(TIME_OF_DAY_BY_HOUR),
        "SLOTS": [list(day) for day in SLOT_BY_DAY_AND_TIME],
    }
    for name, value in values.items():
        statement = statement.replace(f"${name}$", str(value))
    return statement


_PLACES: Final = f"""
CREATE TABLE place_seen AS SELECT o.id, min(e.ts) AS first FROM place_of o LEFT JOIN events e USING (source, place)
GROUP BY ALL;
CREATE TABLE place_category AS
SELECT o.id, coalesce(any_value(p.category), arg_min(e.category, (e.ts, e.category))) AS category
FROM place_of o LEFT JOIN places p USING (source, place) LEFT JOIN events e USING (source, place) GROUP BY ALL;
CREATE TABLE place_tag AS
SELECT id, list(DISTINCT tag ORDER BY tag) AS tags, list(DISTINCT grp ORDER BY grp) AS grps FROM (
    SELECT c.id, coalesce(t.tag, $T$ - 1) AS tag
    FROM (SELECT id, unnest({NAMES}) AS category FROM place_category WHERE category IS NOT NULL
          UNION ALL SELECT id, NULL FROM place_category WHERE category IS NULL) c
    LEFT JOIN tag_of t ON t.name = c.category) JOIN grp_of USING (tag)
GROUP BY id;
CREATE TABLE new_places AS
SELECT o.id AS place_id, coalesce(p.name, concat('Place ', right(o.place, 8))) AS name, o.city::INTEGER AS city_id,
       o.city_name, s.lat AS latitude, s.lon AS longitude, a.area::INTEGER AS neighborhood_id,
       a.name AS neighborhood_name, t.grps::INTEGER[] AS category_ids,
       list_transform(range($C$), lambda i: list_contains(t.grps, i)::INT)::FLOAT[] AS category_one_hot,
       list_transform(range($T$), lambda i: list_contains(t.tags, i)::INT / len(t.tags))::FLOAT[] AS fine_tag_vector,
       coalesce(p.price, 2)::INTEGER AS price_band, 1::INTEGER AS typical_time_slot,
       1::FLOAT AS base_popularity, 0::FLOAT AS avg_daily_visits, 0::FLOAT AS conversion_rate,
       (1 / (1 + ln(2)))::FLOAT AS novelty_score, coalesce(f.first, $START$) AS as_of
FROM place_of o JOIN spot s USING (id) JOIN area_of a USING (id) JOIN place_tag t USING (id)
JOIN place_seen f USING (id) LEFT JOIN places p ON p.source = o.source AND p.place = o.place;
"""

_USERS: Final = """
CREATE TABLE tie AS
SELECT u, v, min(moment) AS moment, bool_and(late) AS late FROM (
    SELECT least(a.id, b.id) AS u, greatest(a.id, b.id) AS v,
           coalesce(f.since, CASE f.known WHEN 'end' THEN $END$ ELSE $START$ END) AS moment,
           f.since IS NULL AND f.known = 'end' AS late
    FROM friendships f JOIN user_of a ON a.source = f.source AND a.user = f.a
                       JOIN user_of b ON b.source = f.source AND b.user = f.b)
GROUP BY ALL;
CREATE TABLE user_seen AS
SELECT id, least(min(first), $END$) AS first FROM (
    SELECT o.id, min(e.ts) AS first FROM user_of o JOIN events e USING (source, user) GROUP BY ALL
    UNION ALL SELECT u, greatest(moment, $START$) FROM tie UNION ALL SELECT v, greatest(moment, $START$) FROM tie
    UNION ALL SELECT o.id, $START$ FROM user_of o JOIN users USING (source, user))
GROUP BY ALL;
CREATE TABLE new_users AS
SELECT o.id AS user_id, coalesce(n.name, concat('User ', right(o.user, 8))) AS name, o.city::INTEGER AS home_city_id,
       0::INTEGER AS home_neighborhood_id,
       list_transform(range($C$), lambda i: 1.0 / $C$)::FLOAT[] AS cat_pref,
       list_transform(range($T$), lambda i: 1.0 / $T$)::FLOAT[] AS fine_pref,
       list_transform(range($V$), lambda i: 1.0 / $V$)::FLOAT[] AS vibe_pref,
       MAP {0::INTEGER: 1::FLOAT} AS area_freqs,
       1::FLOAT AS avg_sessions_per_week, 1::FLOAT AS avg_views_per_session, 0::FLOAT AS avg_likes_per_session,
       0::FLOAT AS avg_saves_per_session, 0::FLOAT AS avg_attends_per_month, f.first AS as_of
FROM user_of o JOIN user_seen f USING (id) LEFT JOIN users n ON n.source = o.source AND n.user = o.user;
"""

# seed, section 2.4; events of one pair at one moment are one row, since that is the table's key
_INTERACTIONS: Final = f"""
CREATE TABLE merged AS
SELECT u.id AS user_id, p.id AS place_id, e.ts, any_value(e.local) AS local, max(e.dwell) AS dwell,
       count(*) FILTER (kind = 'like') AS likes, count(*) FILTER (kind = 'save') AS saves,
       count(*) FILTER (kind = 'share') AS shares, bool_or(kind = 'attended') AS attended, max(e.rating) AS stars
FROM events e JOIN user_of u USING (source, user) JOIN place_of p ON p.source = e.source AND p.place = e.place
GROUP BY ALL;
CREATE TABLE new_interactions AS
SELECT user_id, place_id, dwell::FLOAT AS dwell_time, likes::INTEGER AS num_likes, saves::INTEGER AS num_saves,
       shares::INTEGER AS num_shares, attended,
       least(greatest(coalesce(stars, 1 + least(greatest(dwell, 0) / 150.0, 2) + least(likes * 0.5, 1.5)
             + least(saves * 1.0, 2) + least(shares * 0.5, 1) + attended::INT * 2), 1), 5)::FLOAT AS implicit_rating,
       ts AS timestamp, ($HOURS$)[hour(local) + 1]::INTEGER AS time_of_day_bucket,
       (isodow(local) >= 6)::INTEGER AS day_of_week_bucket
FROM (SELECT * REPLACE (coalesce(dwell, CASE WHEN attended THEN {VISIT_SECONDS} ELSE {VIEW_SECONDS} END) AS dwell)
      FROM merged);
"""

# Of friendships without a date that are known from the start, one in a few is taken to begin when both have shown up:
# else nothing could be learned about how friendships come about. Which ones, their ids alone decide.
_EDGES: Final = f"""
CREATE TABLE shown AS SELECT o.id, min(e.ts) AS first FROM user_of o JOIN events e USING (source, user) GROUP BY ALL;
CREATE TABLE dated AS
SELECT u, v, late, revealed,
       CASE WHEN revealed THEN greatest(a.first, b.first) ELSE greatest(moment, $START$) END AS moment
FROM (SELECT *, NOT late AND moment <= $START$ AND hash(u, v, 'revealed') % {_REVEALED} = 0
             AND u IN (SELECT id FROM shown) AND v IN (SELECT id FROM shown) AS revealed FROM tie) t
LEFT JOIN shown a ON a.id = t.u LEFT JOIN shown b ON b.id = t.v;
CREATE TABLE new_user_user_edges AS
SELECT u AS user_u, v AS user_v, 0::FLOAT AS interest_overlap_score, 0::INTEGER AS co_attendance_count,
       0::FLOAT AS same_neighborhood_freq, least(greatest(d.moment, a.first, b.first), $END$) AS as_of
FROM dated d JOIN user_seen a ON a.id = d.u JOIN user_seen b ON b.id = d.v;
"""

# seed, section 2.6: friends, and who met twice, are compatible; a negative is the first of a pair with somebody of the
# same city whom they neither know nor ever met, at the same moment. Attending is meeting again after that moment.
_LABELS: Final = """
CREATE TABLE attended AS
SELECT DISTINCT user_id, place_id, timestamp::DATE AS day, min(timestamp) AS moment FROM new_interactions WHERE attended
GROUP BY user_id, place_id, day;
CREATE TABLE met AS
SELECT a.user_id AS u, b.user_id AS v, greatest(a.moment, b.moment) AS moment
FROM attended a JOIN attended b USING (place_id, day) WHERE a.user_id < b.user_id;
CREATE TABLE positive AS
SELECT u, v, min(moment) AS moment FROM (
    SELECT u, v, moment FROM dated WHERE revealed OR late OR moment > $START$
    UNION ALL
    SELECT u, v, moment FROM (SELECT u, v, moment, row_number() OVER (PARTITION BY u, v ORDER BY moment) AS n FROM met)
    WHERE n = 2)
GROUP BY ALL;
CREATE TABLE peers AS SELECT id, city, row_number() OVER (PARTITION BY city ORDER BY id) - 1 AS at,
       count(*) OVER (PARTITION BY city) AS n FROM user_of;
CREATE TABLE negative AS
SELECT u, v, min(moment) AS moment FROM (
    SELECT least(p.u, w.id) AS u, greatest(p.u, w.id) AS v, p.moment
    FROM positive p JOIN peers a ON a.id = p.u
    JOIN peers w ON w.city = a.city AND w.at = hash(p.u, p.v, 'negative') % a.n WHERE w.id != p.u)
GROUP BY ALL;
CREATE TABLE known AS SELECT u, v FROM tie UNION SELECT u, v FROM met;
CREATE TABLE new_friend_labels AS
SELECT l.u AS user_u, l.v AS user_v, compat::INTEGER AS label_compat,
       (compat AND EXISTS (SELECT 1 FROM met m WHERE m.u = l.u AND m.v = l.v AND m.moment > l.moment))::INTEGER
       AS label_attend, least(greatest(l.moment, a.first, b.first), $END$) AS as_of
FROM (SELECT *, TRUE AS compat FROM positive UNION ALL SELECT *, FALSE FROM negative ANTI JOIN known USING (u, v)) l
JOIN user_seen a ON a.id = l.u JOIN user_seen b ON b.id = l.v;
"""
