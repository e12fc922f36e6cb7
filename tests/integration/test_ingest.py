"""A team's own files, with the real world's dirt, to landed tables that pass the gate."""

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from expectations import SIZES_SQL, SUITES, Bounds
from jobs import protocols, validate
from jobs.command import sentence
from jobs.report import Report
from recsys.atomic import restored
from recsys.dataset import read_source
from recsys.errors import ConfigError, DataError
from recsys.ingest.derive import clustered
from recsys.ingest.land import Landed, land
from recsys.ingest.mapping import read_mapping
from recsys.ingest.suggest import suggest
from recsys.lake import Lake
from recsys.profiles import views
from recsys.quality import check, conform
from recsys.schemas import TABLES
from recsys.settings import ROOT, Settings
from recsys.taxonomy import read_taxonomy
from recsys.workbench import Workbench

MAPPING = """
name = "tiny"
[[source]]
name = "a"
city = "Aville"
timezone = "Europe/Berlin"
[source.events]
files = "events.csv"
user = "who"
place = "where"
time = "at"
kind = "what"
kinds = {{ "check in" = "attended", "ad" = "ignore" }}
category = "kind of place"
{extra}
"""
FRIENDS = """
[[source.friendships]]
files = "friends.csv"
a = "x"
b = "y"
"""
HEADER = "who,where,at,what,kind of place"
ROWS = (
    "7,cafe,2024-05-01 08:30:00,check in,coffee",
    "7,park,2024-05-02 23:30:00,view,green",
    "u-8,cafe,2024-05-01 09:00:00,check in,coffee",
    "u-8,museum,2024-05-04 15:00:00,like,art",
    "u-8,museum,2024-05-04 15:00:00,save,art",
    "550e8400-e29b-41d4-a716-446655440000,museum,2024-05-06 10:00:00,check in,art",
    "7,cafe,2024-05-06 11:00:00,ad,coffee",
)


def prepared(folder: Path, rows=ROWS, extra: str = "", mapping: str = MAPPING, **files: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mapping.toml").write_text(mapping.format(extra=extra))
    (folder / "events.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "mapping.toml"


def ingest(mapping: Path, out: Path, now: datetime | None = None) -> Landed:
    with Workbench(out / ".spill") as bench:
        return land(read_mapping(mapping), bench, out / "landing", out / "ids", out / "quarantine", now=now)


def rows(out: Path, table: str) -> list[dict]:
    return pq.read_table(out / "landing" / f"{table}.parquet").to_pylist()


def ids(out: Path, kind: str) -> dict[tuple[str, str], int]:
    return {(r["source"], r["source_id"]): r["id"] for r in pq.read_table(out / "ids" / f"{kind}.parquet").to_pylist()}


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_rows_are_what_the_files_say(tmp_path):
    ingest(prepared(tmp_path / "in"), tmp_path)
    user, place = ids(tmp_path, "users"), ids(tmp_path, "places")
    assert sorted(user) == [("a", "550e8400-e29b-41d4-a716-446655440000"), ("a", "7"), ("a", "u-8")]
    found = {(r["user_id"], r["place_id"]): r for r in rows(tmp_path, "interactions")}
    assert len(found) == 5, "events of a pair at one moment are one row; what is ignored is none"
    cafe = found[user["a", "7"], place["a", "cafe"]]
    assert cafe["timestamp"] == datetime(2024, 5, 1, 6, 30, tzinfo=UTC), "wall clock in Berlin"
    assert (cafe["attended"], cafe["time_of_day_bucket"], cafe["implicit_rating"]) == (True, 0, 4.0)
    park = found[user["a", "7"], place["a", "park"]]
    assert (park["timestamp"].hour, park["time_of_day_bucket"], park["attended"]) == (21, 2, False)
    museum = found[user["a", "u-8"], place["a", "museum"]]
    assert (museum["num_likes"], museum["num_saves"], museum["day_of_week_bucket"]) == (1, 1, 1)
    assert museum["implicit_rating"] == pytest.approx(1 + 0.2 + 0.5 + 1)
    taxonomy = read_taxonomy(tmp_path / "landing")
    assert taxonomy.tags == ("art", "coffee", "green", "unknown")
    named = {r["place_id"]: r for r in rows(tmp_path, "places")}
    assert named[place["a", "cafe"]]["fine_tag_vector"] == [0, 1, 0, 0]
    assert read_source(tmp_path / "landing")["derived"] is True


COARSE = (
    "7,cafe,2024-05-01 08:00:00,check in,coffee",
    "7,cafe,2024-05-01 08:00:00,check in,coffee",
    "7,cafe,2024-05-01 08:00:00,check in,coffee",
    "7,cafe,2024-05-01 08:00:00,view,coffee",
    "7,cafe,2024-05-01 08:00:00,like,coffee",
    "7,cafe,2024-05-01 08:00:00,like,coffee",
    "u-8,cafe,2024-05-01 08:00:00,check in,coffee",
)


class TestRepeats:
    """Visits of a pair at one moment: counted where the clock is too coarse to tell them apart, else one event."""

    def test_where_times_are_whole_minutes_every_visit_counts_and_what_belongs_to_it_stays(self, tmp_path):
        figures = ingest(prepared(tmp_path / "in", rows=COARSE), tmp_path).figures
        user, place = ids(tmp_path, "users"), ids(tmp_path, "places")
        assert (figures["told_apart"], figures["merged"]) == (2, 3)
        start = datetime(2024, 5, 1, 6, tzinfo=UTC)
        found = {(r["user_id"], r["timestamp"]): r for r in rows(tmp_path, "interactions")}
        seven = [found[user["a", "7"], start + timedelta(microseconds=i)] for i in range(3)]
        assert [(r["attended"], r["num_likes"]) for r in seven] == [(True, 2), (True, 0), (True, 0)]
        assert {r["time_of_day_bucket"] for r in seven} == {0}
        assert [r["place_id"] for r in found.values()] == [place["a", "cafe"]] * 4
        assert accepted(tmp_path)["interactions"] == 4

    def test_a_clock_with_seconds_says_that_it_is_one_event_sent_twice(self, tmp_path):
        fine = "u-8,cafe,2024-05-01 08:00:01,check in,coffee"
        figures = ingest(prepared(tmp_path / "in", rows=(*COARSE, fine)), tmp_path).figures
        assert (figures["told_apart"], figures["merged"], figures["interactions"]) == (0, 5, 3)

    @pytest.mark.parametrize(("said", "interactions"), [("count", 5), ("merge", 3)])
    def test_the_mapping_has_the_last_word(self, tmp_path, said, interactions):
        fine = ("u-8,cafe,2024-05-01 08:00:01,check in,coffee",) if said == "count" else ("8,cafe,2024-05-02,view,art",)
        made = prepared(tmp_path / "in", rows=(*COARSE, *fine), extra=f'repeats = "{said}"')
        assert ingest(made, tmp_path).figures["interactions"] == interactions

    def test_the_order_of_the_rows_changes_nothing(self, tmp_path):
        mapping = MAPPING.replace('category = "kind of place"', 'category = "kind of place"\ndwell = "for"')
        lines = [f"{row},{60 * i}" for i, row in enumerate(COARSE)]
        for name, ordered in (("one", lines), ("other", lines[::-1])):
            out = tmp_path / name
            ingest(prepared(out / "in", mapping=mapping, events__csv="\n".join([HEADER + ",for", *ordered])), out)
        assert state(tmp_path / "one" / "landing") == state(tmp_path / "other" / "landing")
        dwell = [r["dwell_time"] for r in rows(tmp_path / "one", "interactions")]
        assert dwell == [300.0, 60.0, 120.0, 360.0], "each visit has its own"


def accepted(out: Path) -> dict[str, int]:
    source, widths = read_source(out / "landing"), read_taxonomy(out / "landing").widths
    (out / "lake").mkdir(exist_ok=True)
    found = {}
    with Lake(out) as lake:
        files = {name: out / "landing" / f"{name}.parquet" for name in SUITES}
        sizes = next(lake.derive(SIZES_SQL, {n: files[n] for n in ("users", "places")})).to_pylist()[0]
        bounds = Bounds.of(source, sizes, widths)
        for name, path in files.items():
            conform(path, TABLES[name])
            suite = SUITES[name](bounds)
            verdict = check(lake.derive(suite.sql, {"landing": path}), suite)
            assert verdict.reasons == {}, name
            found[name] = verdict.accepted
            (out / "lake" / path.name).write_bytes(path.read_bytes())
    return found


def test_what_is_landed_passes_the_gate_whole(tmp_path):
    friends = "x,y\n7,u-8\nu-8,nobody-yet\n"
    ingest(prepared(tmp_path / "in", extra=FRIENDS, friends__csv=friends), tmp_path)
    labels = len(rows(tmp_path, "friend_labels"))
    found = {"users": 4, "places": 3, "interactions": 5, "user_user_edges": 2, "friend_labels": labels}
    assert accepted(tmp_path) == found


def test_two_runs_change_nothing_and_ids_stay_when_rows_come(tmp_path):
    mapping = prepared(tmp_path / "in")
    ingest(mapping, tmp_path)
    before, kept = state(tmp_path / "landing"), (ids(tmp_path, "users"), ids(tmp_path, "places"))
    assert ingest(mapping, tmp_path).figures["new_ids"] == {"cities": 0, "users": 0, "places": 0}
    assert state(tmp_path / "landing") == before
    prepared(tmp_path / "in", rows=("1,attic,2024-04-30 10:00:00,view,art", *ROWS))
    assert ingest(mapping, tmp_path).figures["new_ids"] == {"cities": 0, "users": 1, "places": 1}
    for kind, old in zip(("users", "places"), kept, strict=True):
        now = ids(tmp_path, kind)
        assert all(now[key] == number for key, number in old.items())
        assert sorted(now.values()) == list(range(len(now)))


def test_what_is_gone_from_the_files_is_gone_but_for_its_number(tmp_path):
    friends = "x,y\nold,older\n"
    ingest(prepared(tmp_path / "in", extra=FRIENDS, friends__csv=friends), tmp_path)
    kept = ids(tmp_path, "users"), ids(tmp_path, "places")
    assert [len(of) for of in kept] == [5, 3]
    ingest(prepared(tmp_path / "in", rows=ROWS[:2]), tmp_path)
    assert (ids(tmp_path, "users"), ids(tmp_path, "places")) == kept
    assert {r["place_id"] for r in rows(tmp_path, "places")} == {kept[1]["a", "cafe"], kept[1]["a", "park"]}
    assert {r["user_id"] for r in rows(tmp_path, "users")} == {kept[0]["a", "7"]}
    assert accepted(tmp_path)["places"] == 2


def test_the_same_id_in_two_sources_is_two_things(tmp_path):
    second = MAPPING.format(extra="").replace('name = "tiny"', "").replace('"a"', '"b"').replace("Aville", "Beeton")
    ingest(prepared(tmp_path / "in", extra=second.replace("{", "{{").replace("}", "}}") and second), tmp_path)
    user = ids(tmp_path, "users")
    assert user["a", "7"] != user["b", "7"]
    assert {r["home_city_id"] for r in rows(tmp_path, "users")} == {0, 1}
    assert len(rows(tmp_path, "interactions")) == 10


FUTURE = (
    "7,museum,2024-06-20 10:00:00,check in,art",
    "u-8,cafe,2024-06-20 10:00:00,check in,coffee",
    "7,cafe,2024-06-20 10:30:00,check in,coffee",
)


def test_future_events_change_no_profile_before_them(tmp_path):
    friends = "x,y\n7,u-8\n"
    made = {}
    for name, more in (("now", ()), ("later", FUTURE)):
        out = tmp_path / name
        ingest(prepared(out / "in", rows=(*ROWS, *more), extra=FRIENDS, friends__csv=friends), out)
        accepted(out)
        made_views(out)
        with Lake(out) as lake:
            early = {"until": datetime(2024, 5, 7, tzinfo=UTC)}
            made[name] = {
                view: lake.query(f"FROM {view} WHERE event_timestamp <= $until ORDER BY ALL", early).to_pylist()
                for view in ("user_profile", "place_profile", "user_user", "user_place")
            }
    assert made["now"]["user_profile"]
    for view, found in made["now"].items():
        # the row of the last day of the shorter data is the end of its data, not a Monday
        assert [r for r in found if r["event_timestamp"].isoweekday() == 1 or view == "user_place"] == [
            r for r in made["later"][view] if r["event_timestamp"].isoweekday() == 1 or view == "user_place"
        ], view


def test_rows_that_cannot_be_told_apart_or_dated_are_quarantined_with_a_reason(tmp_path):
    bad = (
        ",cafe,2024-05-01 08:30:00,view,coffee",
        "7,,2024-05-01 08:30:00,view,coffee",
        "7,cafe,yesterday,view,coffee",
        "7,cafe,2031-05-01 08:30:00,view,coffee",
    )
    friends = "x,y\n7,7\n7,u-8\n"
    mapping = prepared(tmp_path / "in", rows=(*ROWS, *bad), extra=FRIENDS, friends__csv=friends)
    figures = ingest(mapping, tmp_path, now=datetime(2025, 1, 1, tzinfo=UTC)).figures
    assert figures["read"]["rejects"] == 5
    found = pq.read_table(tmp_path / "quarantine" / "ingest.parquet").to_pylist()
    assert [(r["file"], r["row"], r["reason"]) for r in found] == [
        ("events.csv", 8, "user is missing or no id (got nothing)"),
        ("events.csv", 9, "place is missing or no id (got nothing)"),
        ("events.csv", 10, "time is missing or no moment (got yesterday)"),
        ("events.csv", 11, "time is in the future (got 2031-05-01 06:30:00+00)"),
        ("friends.csv", 1, "nobody is their own friend (got 7)"),
    ]
    assert json.loads(found[2]["content"])["at"] == "yesterday", "nothing is lost"
    assert len(rows(tmp_path, "interactions")) == 5


def test_a_moment_that_is_none_is_quarantined_also_where_the_others_have_a_zone(tmp_path):
    zoned = [f"7,cafe,2024-05-0{d}T08:30:00+02:00,view,coffee" for d in (1, 2)]
    ingest(prepared(tmp_path / "in", rows=(*zoned, "7,cafe,yesterday,view,coffee")), tmp_path)
    found = pq.read_table(tmp_path / "quarantine" / "ingest.parquet").to_pylist()
    assert [(r["row"], r["reason"]) for r in found] == [(3, "time is missing or no moment (got yesterday)")]
    assert {r["timestamp"].hour for r in rows(tmp_path, "interactions")} == {6}


def test_a_friendship_without_its_date_is_not_taken_to_be_an_old_one(tmp_path):
    friends = "x,y,from\n7,u-8,2024-05-02\n7,z,\nu-8,z,soon\n"
    extra = FRIENDS + 'since = "from"\n'
    ingest(prepared(tmp_path / "in", extra=extra, friends__csv=friends), tmp_path)
    found = pq.read_table(tmp_path / "quarantine" / "ingest.parquet").to_pylist()
    assert [r["reason"] for r in found] == [
        "since is missing or no moment (got nothing)",
        "since is missing or no moment (got soon)",
    ]
    (edge,) = rows(tmp_path, "user_user_edges")
    assert edge["as_of"] == datetime(2024, 5, 1, 22, tzinfo=UTC), "midnight in Berlin"


def test_a_clock_that_is_a_little_ahead_is_not_the_future(tmp_path):
    """Ingest and gate agree on how much that is."""
    now = datetime(2024, 5, 7, 10, tzinfo=UTC)
    ahead = [f"7,cafe,2024-05-07 12:{m:02}:01,view,coffee" for m in (4, 5)]
    ingest(prepared(tmp_path / "in", rows=(*ROWS, *ahead)), tmp_path, now=now)
    found = pq.read_table(tmp_path / "quarantine" / "ingest.parquet").to_pylist()
    assert [r["reason"] for r in found] == ["time is in the future (got 2024-05-07 10:05:01+00)"]
    validated(tmp_path, now=now)
    with Lake(tmp_path) as lake:
        assert len(lake.query("FROM interactions")) == 6


def test_an_event_that_does_not_say_its_kind_is_of_the_default_kind(tmp_path):
    for name, kinds in (("said", 'kinds = {{ "check in" = "attended", "ad" = "ignore" }}'), ("unsaid", "")):
        mapping = MAPPING.replace('kinds = {{ "check in" = "attended", "ad" = "ignore" }}', kinds)
        out = tmp_path / name
        ingest(prepared(out / "in", mapping=mapping, rows=("7,cafe,2024-05-01 08:30:00,,coffee", ROWS[1])), out)
        assert [r["attended"] for r in rows(out, "interactions")] == [True, False]


def test_globs_reach_into_folders_and_a_query_starts_where_the_mapping_lies(tmp_path):
    ingest(prepared(tmp_path / "in"), tmp_path / "one")
    for at, month in enumerate(("2024/05/events.csv", "2024/06/events[1].csv")):
        path = tmp_path / "in" / month
        path.parent.mkdir(parents=True)
        path.write_text("\n".join([HEADER, *ROWS[at * 3 : (at + 1) * 3 + at]]) + "\n")
    for name, files in (
        ("glob", 'files = "2024/*/*.csv"'),
        ("deep", 'files = "2024/**/*.csv"'),
        ("named", 'files = ["2024/05/events.csv", "2024/06/events[1].csv"]'),
        ("query", "query = \"SELECT * FROM read_csv('2024/*/*.csv', all_varchar = true); \""),
    ):
        ingest(prepared(tmp_path / "in", mapping=MAPPING.replace('files = "events.csv"', files)), tmp_path / name)
        assert state(tmp_path / name / "landing") == state(tmp_path / "one" / "landing"), name


def truncated(folder: Path) -> Path:
    mapping = prepared(folder, mapping=MAPPING.replace("events.csv", "events.parquet"))
    pq.write_table(pa.Table.from_pylist([{"who": str(i)} for i in range(1000)]), folder / "events.parquet")
    whole = (folder / "events.parquet").read_bytes()
    (folder / "events.parquet").write_bytes(whole[: len(whole) // 2])
    return mapping


BROKEN: list[tuple[str, Callable[[Path], Path], type[Exception], str]] = [
    (
        "missing column",
        lambda f: prepared(f, mapping=MAPPING.replace('place = "where"', 'place = "wher"')),
        DataError,
        r"^a\.events\.place: no column 'wher' in events\.csv: did you mean 'where'\? \(got \['who', 'where', ",
    ),
    (
        "misspelt key",
        lambda f: prepared(f, mapping=MAPPING.replace("time =", "tiem =")),
        ConfigError,
        r"mapping\.toml: source\[0\]\.events\.time is missing; "
        r"source\[0\]\.events\.tiem is not a key: did you mean time\?",
    ),
    (
        "unknown zone",
        lambda f: prepared(f, mapping=MAPPING.replace("Europe/Berlin", "Europe/Berlim")),
        ConfigError,
        r"source\[0\]\.timezone: no such time zone: Europe/Berlin is near \(got 'Europe/Berlim'\)",
    ),
    (
        "mixed zones",
        lambda f: prepared(f, rows=(*ROWS, "7,cafe,2024-05-07T08:30:00+02:00,view,coffee")),
        DataError,
        r"a\.events\.time: mixed time zones in events\.csv: 1 of 8 values carry one and the others do not "
        r"\(got none in row 1\)",
    ),
    (
        "unknown event",
        lambda f: prepared(f, rows=(*ROWS, "7,cafe,2024-05-07 08:30:00,dance,coffee")),
        DataError,
        r"a\.events\.kinds: what is an event of this name\? \(got 'dance' 1 times\): map it, or to \"ignore\"",
    ),
    (
        "Latin-1",
        lambda f: prepared(f, events__csv=(HEADER + "\n7,caf\xe9,2024-05-01 08:30:00,view,art\n").encode("latin-1")),
        DataError,
        r'a\.events: events\.csv cannot be read: it is not UTF-8: say encoding = "latin-1"',
    ),
    ("empty file", lambda f: prepared(f, events__csv=b""), DataError, r"^a\.events: events\.csv is empty$"),
    ("only a header", lambda f: prepared(f, rows=()), DataError, r"^a\.events: events\.csv holds no row$"),
    (
        "truncated parquet",
        truncated,
        DataError,
        r"^a\.events: events\.parquet cannot be read: .*No magic bytes found at end of file '.*events\.parquet'$",
    ),
    (
        "ratings upside down",
        lambda f: prepared(f, extra="rating_scale = [5, 1]"),
        ConfigError,
        r"^mapping\.toml: source\[0\]\.events\.rating_scale: must be the lowest rating, then the highest "
        r"\(got \[5\.0, 1\.0\]\)$",
    ),
    (
        "no such file",
        lambda f: prepared(f, mapping=MAPPING.replace("events.csv", "event-*.csv")),
        ConfigError,
        r"files: nothing matches 'event-\*\.csv' \(looked in ",
    ),
    (
        "another ending",
        lambda f: prepared(f, mapping=MAPPING.replace("events.csv", "events.xlsx"), events__xlsx=b"x"),
        DataError,
        r"events\.xlsx: files must end in \.parquet, \.csv, .* \(got '\.xlsx'\)",
    ),
    (
        "wrong type",
        lambda f: prepared(f, mapping=MAPPING.replace('category = "kind of place"', 'dwell = "what"')),
        DataError,
        r"a\.events\.dwell: row 1 of events\.csv is no number \(got 'check in'\)",
    ),
    (
        "all rejected",
        lambda f: prepared(f, rows=(",x,2024-05-01 08:30:00,view,a",)),
        DataError,
        r"^no event is left: 1 rows were rejected \(see ",
    ),
    ("no TOML", lambda f: prepared(f, mapping="[[["), ConfigError, r"^mapping\.toml is not TOML: "),
    ("no mapping", lambda f: f / "none.toml", ConfigError, r"^no such mapping file \(got "),
]


@pytest.mark.parametrize(("make", "error", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_input_is_refused_by_name_and_changes_nothing(make, error, message, tmp_path):
    ingest(prepared(tmp_path / "good"), tmp_path)
    before = state(tmp_path / "landing")
    with pytest.raises(error, match=message):
        ingest(make(tmp_path / "bad"), tmp_path)
    assert state(tmp_path / "landing") == before


def test_encodings_a_bom_and_compressed_files_are_read(tmp_path):
    content = HEADER + "\n7,café,2024-05-01 08:30:00,view,art\n"
    for name, data, extra in (
        ("bom", b"\xef\xbb\xbf" + content.encode(), ""),
        ("latin", content.encode("latin-1"), 'encoding = "latin-1"'),
    ):
        out = tmp_path / name
        ingest(prepared(out / "in", extra=extra, events__csv=data), out)
        assert ("a", "café") in ids(out, "places")
    out = tmp_path / "gz"
    mapping = prepared(
        out / "in", mapping=MAPPING.replace("events.csv", "e.csv.gz"), e__csv__gz=gzip.compress(content.encode())
    )
    ingest(mapping, out)
    assert ("a", "café") in ids(out, "places")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "query", "epoch"])
def test_every_way_in_gives_the_same_rows(kind, tmp_path):
    ingest(prepared(tmp_path / "in"), tmp_path / "csv")
    names = HEADER.split(",")
    records = [dict(zip(names, r.split(","), strict=True)) for r in ROWS]
    folder = tmp_path / "other"
    name = "events.jsonl" if kind == "jsonl" else "events.parquet"
    mapping = MAPPING.replace("events.csv", name)
    if kind == "query":
        mapping = MAPPING.replace(
            'files = "events.csv"', f"query = \"SELECT * FROM read_csv('{tmp_path / 'in' / 'events.csv'}')\""
        )
    made = prepared(folder, mapping=mapping)
    if kind == "jsonl":
        (folder / name).write_text("\n".join(map(json.dumps, records)))
    moments = [datetime.fromisoformat(r["at"]) for r in records]
    if kind == "epoch":
        seconds = [int((m - timedelta(hours=2)).replace(tzinfo=UTC).timestamp()) for m in moments]
        pq.write_table(
            pa.Table.from_pylist([r | {"at": s} for r, s in zip(records, seconds, strict=True)]), folder / name
        )
    if kind == "parquet":
        pq.write_table(
            pa.Table.from_pylist([r | {"at": m} for r, m in zip(records, moments, strict=True)]), folder / name
        )
    ingest(made, tmp_path / kind)
    assert state(tmp_path / kind / "landing") == state(tmp_path / "csv" / "landing")


def test_coordinates_become_neighborhoods(tmp_path):
    places = ["id,lat,lon"] + [f"p{i},{52 + (i % 2) * 0.2 + i * 1e-4},{13 + (i % 2) * 0.3}" for i in range(100)]
    extra = '[source.places]\nfiles = "places.csv"\nid = "id"\nlatitude = "lat"\nlongitude = "lon"'
    ingest(prepared(tmp_path / "in", extra=extra, places__csv="\n".join(places)), tmp_path)
    place = ids(tmp_path, "places")
    area = {r["place_id"]: (r["neighborhood_id"], r["latitude"]) for r in rows(tmp_path, "places")}
    north, south = ({area[place["a", f"p{i}"]][0] for i in range(k, 100, 2)} for k in (1, 0))
    assert not north & south
    assert area[place["a", "cafe"]] == (max(a for a, _ in area.values()), None), "no position: an area of its own"


def test_clusters_are_found_whatever_the_order():
    spots = pa.array([[52.0 + i % 3, 13.0 + (i % 3) * 2] for i in range(130)]).to_numpy(zero_copy_only=False)
    labels = clustered(np.stack(spots))
    assert len({tuple(labels[k::3]) for k in range(3)}) == 3
    assert all(len(set(labels[k::3])) == 1 for k in range(3))


def test_a_suggested_mapping_can_be_ingested(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    kinds = ("check_in", "view", "spam")
    events = [f"{i % 5},{i % 7},2024-05-{1 + i % 20:02} 1{i % 10}:00:00,{kinds[i % 3]}" for i in range(60)]
    (folder / "checkins.csv").write_text("\n".join(["user_id,venue_id,created_at,event_type", *events]))
    (folder / "friends.csv").write_text("user_a,user_b\n0,1\n2,3\n")
    (folder / "venues.csv").write_text("venue_id,name,category,lat,lon\n0,Zero,bar,1,2\n1,One,pub,1.1,2.1\n")
    with Workbench(tmp_path / ".spill") as bench:
        said = suggest(bench, [folder / n for n in ("checkins.csv", "friends.csv", "venues.csv")])
        with pytest.raises(DataError, match=r"none of the files looks like events.*\(got friends.csv\)"):
            suggest(bench, [folder / "friends.csv"])
    for part in (
        'user = "user_id"',
        'place = "venue_id"',
        '"spam" = "ignore"',
        '"check_in" = "attended"',
        "[source.places]",
    ):
        assert part in said
    (folder / "mapping.toml").write_text(said)
    figures = ingest(folder / "mapping.toml", tmp_path).figures
    assert (figures["users"], figures["places"], figures["user_user_edges"]) == (5, 7, 2)


def test_a_run_that_stops_halfway_leaves_what_was_there(tmp_path):
    mapping = prepared(tmp_path / "in")
    ingest(mapping, tmp_path)
    before = state(tmp_path / "landing")
    prepared(tmp_path / "in", rows=ROWS[:3])

    def stop(what: str) -> None:
        if what == "interactions":
            raise KeyboardInterrupt

    folders = (tmp_path / "landing", tmp_path / "ids", tmp_path / "quarantine")
    with Workbench(tmp_path / ".spill") as bench, pytest.raises(KeyboardInterrupt):
        land(read_mapping(mapping), bench, *folders, progress=stop)
    assert state(tmp_path / "landing") == before
    assert not list(tmp_path.glob(".landing*"))


def test_simple_methods_are_measured_by_a_protocol_on_what_was_ingested(tmp_path):
    days = [f"2024-05-{d:02} {h}:00:00" for d in range(1, 29) for h in (10, 20)]
    drawn = np.random.default_rng(0).integers(0, 60, 200)
    events = [f"{i % 6},p{place},{days[i % 56]},check in,k{place % 3}" for i, place in enumerate(drawn)]
    start = FRIENDS.format() + 'known = "start"\n'
    end = FRIENDS.replace("friends.csv", "later.csv") + 'known = "end"\n'
    mapping = prepared(
        tmp_path / "in",
        rows=events,
        extra=start + end,
        friends__csv="x,y\n0,1\n1,2\n2,3\n",
        later__csv="x,y\n0,2\n3,5\n",
    )
    ingest(mapping, tmp_path)
    accepted(tmp_path)
    settings = Settings(data_dir=tmp_path, _env_file=None)
    for protocol, method in (("new", "item_knn"), ("all", "own_history"), ("friends", "adamic_adar")):
        report = Report(f"evaluate-{protocol}", settings.reports, Console(quiet=True))
        protocols.run(settings, report, protocol=protocol)
        found = report.figures["cities"]["Aville"]
        assert 0 <= found[method]["recall"] <= 1
        low, high = report.figures["intervals"]["Aville"][method]["ndcg"]
        assert low <= found[method]["ndcg"] <= high
        groups = report.figures["activity"]["Aville"]
        assert sum(group["users"] for group in groups) == report.figures["users"]["Aville"]
        assert groups[0]["rows"].keys() == found.keys()
        assert report.figures["model_minus"]["Aville"] == {}, "no version was asked for"
        assert json.loads(json.dumps(report.finish()))["cities"]["Aville"] == found
    with pytest.raises(ConfigError, match=r"--protocol must be one of new, all, friends \(got 'old'\)"):
        protocols.run(settings, report, protocol="old")


PLACES = """
[source.places]
files = "places.csv"
id = "id"
name = "name"
category = "kinds"
category_separator = ";"
"""


class TestDirt:
    """What the real world sends, and what becomes of it, through the gate."""

    def test_ids_that_come_twice_keep_their_first_row(self, tmp_path):
        twice = "id,name,kinds\ncafe,Cafe,coffee\ncafe,Other,tea\npark,Park,green\n"
        ingest(prepared(tmp_path / "in", extra=PLACES, places__csv=twice), tmp_path)
        named = {r["place_id"]: r["name"] for r in rows(tmp_path, "places")}
        assert named[ids(tmp_path, "places")["a", "cafe"]] == "Cafe"
        found = pq.read_table(tmp_path / "quarantine/ingest.parquet").to_pylist()
        assert [(r["file"], r["row"], r["reason"]) for r in found] == [("places.csv", 2, "id appears twice (got cafe)")]
        assert json.loads(found[0]["content"])["name"] == "Other"

    def test_users_without_events_and_events_without_users(self, tmp_path):
        extra = '[source.users]\nfiles = "users.csv"\nid = "id"\nname = "name"'
        ingest(prepared(tmp_path / "in", extra=extra, users__csv="id,name\n7,Seven\nquiet,Quiet\n"), tmp_path)
        of, found = ids(tmp_path, "users"), {r["user_id"]: r for r in rows(tmp_path, "users")}
        assert found[of["a", "7"]]["name"] == "Seven"
        assert found[of["a", "quiet"]]["name"] == "Quiet"
        assert found[of["a", "u-8"]]["name"] == "User u-8", "known from events alone"
        assert found[of["a", "quiet"]]["as_of"] == datetime(2024, 5, 1, tzinfo=UTC), "known from the start"
        assert accepted(tmp_path)["users"] == 4

    @pytest.mark.parametrize("kind", ["separator", "list"])
    def test_a_place_with_three_categories(self, tmp_path, kind):
        folder = tmp_path / "in"
        if kind == "separator":
            made = prepared(folder, extra=PLACES, places__csv="id,name,kinds\ncafe,Cafe,coffee; cake ;;music\n")
        else:
            extra = PLACES.replace("places.csv", "places.jsonl").replace('category_separator = ";"', "")
            line = json.dumps({"id": "cafe", "name": "Cafe", "kinds": ["coffee", "cake", "", "music"]})
            made = prepared(folder, extra=extra, places__jsonl=line + "\n")
        ingest(made, tmp_path)
        taxonomy = read_taxonomy(tmp_path / "landing")
        cafe = {r["place_id"]: r for r in rows(tmp_path, "places")}[ids(tmp_path, "places")["a", "cafe"]]
        weights = dict(zip(taxonomy.tags, cafe["fine_tag_vector"], strict=True))
        assert {tag: w for tag, w in weights.items() if w} == pytest.approx(
            dict.fromkeys(("coffee", "cake", "music"), 1 / 3)
        )
        assert {taxonomy.categories[i] for i in cafe["category_ids"]} == {"coffee", "cake", "music"}
        assert [i for i, w in enumerate(cafe["category_one_hot"]) if w] == cafe["category_ids"]
        assert accepted(tmp_path)["places"] == 3

    def test_a_category_that_changes_is_the_one_known_first(self, tmp_path):
        """A later event's category must not reach back in time."""
        later = ("7,cafe,2024-05-09 08:30:00,check in,bar", "7,cafe,2024-05-10 08:30:00,check in,bar")
        ingest(prepared(tmp_path / "in", rows=(*ROWS, *later)), tmp_path)
        tags = read_taxonomy(tmp_path / "landing").tags
        cafe = {r["place_id"]: r for r in rows(tmp_path, "places")}[ids(tmp_path, "places")["a", "cafe"]]
        assert cafe["fine_tag_vector"][tags.index("coffee")] == 1

    def test_a_negative_dwell_is_quarantined_by_the_gate(self, tmp_path):
        mapping = MAPPING.replace('category = "kind of place"', 'category = "kind of place"\ndwell = "for"')
        lines = "\n".join([HEADER + ",for", *(f"{r},{60 if i else -60}" for i, r in enumerate(ROWS))])
        ingest(prepared(tmp_path / "in", mapping=mapping, events__csv=lines), tmp_path)
        validated(tmp_path)
        with Lake(tmp_path) as lake:
            bad = lake.query("SELECT reason, dwell_time FROM quarantine_interactions").to_pylist()
            assert bad == [{"reason": "dwell_time is from 0 to 86400 (got -60)", "dwell_time": -60.0}]
            assert len(lake.query("FROM interactions")) == 4

    def test_a_city_with_three_places(self, tmp_path):
        """Small is no error: neighborhoods, taxonomy and features are made of what there is."""
        spots = "id,name,kinds,lat,lon\ncafe,C,coffee,52.5,13.4\npark,P,green,52.6,13.5\nmuseum,M,art,52.4,13.3\n"
        extra = PLACES + 'latitude = "lat"\nlongitude = "lon"\n'
        ingest(prepared(tmp_path / "in", extra=extra, places__csv=spots), tmp_path)
        assert accepted(tmp_path) == {
            "users": 3, "places": 3, "interactions": 5, "user_user_edges": 0, "friend_labels": 0,
        }  # fmt: skip
        made_views(tmp_path)
        with Lake(tmp_path) as lake:
            assert lake.query("SELECT count(DISTINCT place_id) AS n FROM place_activity").to_pylist() == [{"n": 3}]


def validated(out: Path, now: datetime | None = None) -> None:
    settings = Settings(data_dir=out, now=now, _env_file=None)
    validate.run(settings, Report("validate", settings.reports, Console(quiet=True)))


def made_views(out: Path) -> None:
    with Lake(out) as lake:
        start, end = lake.horizon()
        for view, query in views(lake.source()).items():
            values = (("start", start), ("after", start), ("end", end))
            params = {k: v for k, v in values if f"${k}" in query}
            lake.write(query, out / "features" / f"{view}.parquet", params)


class Killed(BaseException):
    """What no handler may swallow."""


@pytest.mark.parametrize("first", [True, False], ids=["nothing there", "an older state"])
def test_killed_at_any_file_operation_the_landing_is_old_or_new_and_running_again_completes_it(
    tmp_path, first, monkeypatch
):
    """Every operation on files from the n-th on fails, nothing is cleaned up, for every n."""
    older = prepared(tmp_path / "older", rows=ROWS[:4])
    newer = prepared(tmp_path / "newer")
    wanted = []
    for name, mappings in (("old", [older]), ("new", [newer] if first else [older, newer])):
        for mapping in mappings:
            ingest(mapping, tmp_path / name)
        wanted.append(state(tmp_path / name / "landing"))
    old, new = wanted
    seen = []
    for n in range(1, 80):
        out = tmp_path / f"killed-{n}"
        if not first:
            ingest(older, out)
        calls, died = iter(range(1, 10_000)), False

        def mortal(real, calls=calls, n=n):
            def call(*args, **kwargs):
                if next(calls) >= n:
                    raise Killed
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for operation in ("replace", "unlink", "mkdir"):
                patch.setattr(Path, operation, mortal(getattr(Path, operation)))
            patch.setattr("recsys.atomic.shutil.rmtree", mortal(shutil.rmtree))
            try:
                ingest(newer, out)
            except Killed:
                died = True
        there = state(restored(out / "landing"))
        assert there in ([{}, new] if first else [old, new]), f"mixed after {n} operations"
        seen.append(there == new)
        ingest(newer, out)
        assert state(out / "landing") == new
        assert len(ids(out, "users")) == 3, "nobody got two numbers"
        if not died:
            break
    assert not died
    assert seen == sorted(seen)
    assert seen.count(False) > 3


FULL = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["recsys", *sys.argv[2:]]
from jobs.cli import main
main()
"""


@pytest.mark.parametrize("job", ["ingest", "validate"])
def test_a_disk_that_is_full_at_the_largest_file_changes_nothing(tmp_path, job):
    """A limit on the size of a file is what a process can set for itself; the errors are those of a full disk."""
    drawn = np.random.default_rng(0).integers([50, 97, 28, 24, 60, 60, 7], size=(8000, 7))
    drawn += [0, 0, 1, 0, 0, 0, 0]
    many = [f"{u},p{p},2024-05-{d:02} {h:02}:{m:02}:{s:02},check in,k{k}" for u, p, d, h, m, s, k in drawn]
    mapping = prepared(tmp_path / "in")
    env = {**os.environ, "RECSYS_DATA_DIR": str(tmp_path)}
    commands = {"ingest": ["ingest", str(mapping)], "validate": ["validate", "--accept-drift"]}

    def run(job: str, limit: int = 2**40) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", FULL, str(limit), *commands[job]]
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run("ingest").returncode == run("validate").returncode == 0
    prepared(tmp_path / "in", rows=many)
    if job == "validate":
        assert run("ingest").returncode == 0
    folders = ("landing", "lake", "quarantine")
    before = {name: state(tmp_path / name) for name in folders}
    done = run(job, limit=20_000)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert re.search(r"File too large|no space left", " ".join(done.stderr.split())), done.stderr
    assert {name: state(tmp_path / name) for name in folders} == before
    assert run(job).returncode == 0
    assert len(rows(tmp_path, "interactions")) > 3000


@pytest.mark.parametrize("at", range(1, 8))
def test_a_disk_that_is_full_at_any_write_changes_nothing(tmp_path, at, monkeypatch):
    ingest(prepared(tmp_path / "in", rows=ROWS[:4]), tmp_path)
    before, calls = state(tmp_path / "landing"), iter(range(1, 100))

    def full(path: Path) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    mapping = prepared(tmp_path / "in")
    monkeypatch.setattr("recsys.atomic.flush", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        ingest(mapping, tmp_path)
    assert "there is no space left; what was there before is as it was" in str(sentence(caught.value))
    assert state(tmp_path / "landing") == before
