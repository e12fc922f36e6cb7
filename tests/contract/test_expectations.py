"""Every rule of every suite against a row made to break it, and the suites against the schemas they come from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations import SIZES_SQL, SUITES, Bounds
from recsys.constants import C_FINE, C_VIBE
from recsys.errors import DataError
from recsys.lake import Lake
from recsys.quality import Expectation, Suite, Verdict, check
from recsys.schemas import TABLES, USERS
from recsys.taxonomy import CITY

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 25, tzinfo=UTC)
NOW = datetime(2024, 4, 1, 9, tzinfo=UTC)  # a Monday, after the end
BOUNDS = Bounds(start=START, end=END, now=NOW, cities=8, neighborhoods=15, users=1000, places=1000)
WEDNESDAY_9 = datetime(2024, 1, 3, 9, tzinfo=UTC)  # morning, weekday
NAN, INF = math.nan, math.inf

Row = dict[str, Any]


def weights(length: int, *values: float) -> list[float]:
    return [*values, *[0.0] * (length - len(values))]


def user(i: int, **changes: Any) -> Row:
    return {
        "user_id": i, "name": f"User {i}", "home_city_id": i % 8, "home_neighborhood_id": i % 15,
        "cat_pref": weights(6, 0.25, 0.75), "fine_pref": [1 / C_FINE] * C_FINE, "vibe_pref": [1 / C_VIBE] * C_VIBE,
        "area_freqs": [(3, 0.4), (14, 0.6)], "avg_sessions_per_week": 3.0, "avg_views_per_session": 5.5,
        "avg_likes_per_session": 0.0, "avg_saves_per_session": 0.5, "avg_attends_per_month": 2.0, "as_of": START,
    } | changes  # fmt: skip


def place(i: int, **changes: Any) -> Row:
    return {
        "place_id": i, "name": f"Place {i}", "city_id": i % 8, "city_name": "Aba",
        "latitude": 1.5, "longitude": -2.5, "neighborhood_id": i % 15,
        "neighborhood_name": "Old Town", "category_ids": [4, 0], "category_one_hot": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "fine_tag_vector": weights(C_FINE, 0.5, 0.5), "price_band": 4, "typical_time_slot": 5, "base_popularity": 0.3,
        "avg_daily_visits": 12.0, "conversion_rate": 0.1, "novelty_score": 0.9, "as_of": START,
    } | changes  # fmt: skip


def interaction(i: int, **changes: Any) -> Row:
    return {
        "user_id": i % 5, "place_id": i % 4, "dwell_time": 30.0 + i, "num_likes": 1, "num_saves": 0, "num_shares": 0,
        "attended": i % 2 == 0, "implicit_rating": 2.5, "timestamp": WEDNESDAY_9.replace(microsecond=i),
        "time_of_day_bucket": 0, "day_of_week_bucket": 0,
    } | changes  # fmt: skip


def pair(i: int) -> Row:
    """The i-th pair u < v in a row of people long enough."""
    v = 1
    while i >= v:
        i, v = i - v, v + 1
    return {"user_u": i, "user_v": v}


def edge(i: int, **changes: Any) -> Row:
    values = {"interest_overlap_score": 1.0, "co_attendance_count": 0, "same_neighborhood_freq": 0.2, "as_of": END}
    return pair(i) | values | changes


def label(i: int, **changes: Any) -> Row:
    return pair(i) | {"label_compat": 1, "label_attend": i % 2, "as_of": START} | changes


ROWS = {"users": user, "places": place, "interactions": interaction, "user_user_edges": edge, "friend_labels": label}


def table(name: str, rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table with the types of the contract, nulls allowed."""
    return pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in TABLES[name].arrow]))


@dataclass
class Case:
    """Changes to a good row, exactly the rules that must then be named, and those that must warn."""

    broken: set[str]
    changes: Row = field(default_factory=dict)
    odd: set[str] = field(default_factory=set)


def case(*broken: str, odd: tuple[str, ...] = (), **changes: Any) -> Case:
    return Case(set(broken), changes, set(odd))


def vector(column: str, length: int) -> list[Case]:
    odd = f"{column} has no missing, NaN or infinite element"
    low, high = f"{column} has no element below 0", f"{column} has no element above 1"
    total = f"{column} sums to 1 within 1e-05"
    return [
        case(f"{column} has {length} elements", **{column: weights(length - 1, 1.0)}),
        case(f"{column} has {length} elements", **{column: weights(length + 1, 1.0)}),
        case(f"{column} has {length} elements", total, **{column: []}),
        case(odd, **{column: weights(length, NAN)}),
        case(odd, **{column: [None, *weights(length - 1, 1.0)]}),
        case(odd, high, total, **{column: weights(length, INF)}),
        case(low, high, **{column: weights(length, -0.5, 1.5)}),
        case(total, **{column: weights(length, 0.9)}),
        case(total, **{column: weights(length, 0.99998)}),
        case(total, **{column: [0.0] * length}),
    ]


AREAS = "area_freqs has no missing, NaN or infinite element"
AREA_SUM = "area_freqs sums to 1 within 1e-05"
ONE_HOT = "category_ids agrees with category_one_hot"
POSITION = "latitude and longitude are numbers, or both missing"
HORIZON = f"timestamp lies in [{START.isoformat()}, {END.isoformat()})"
AS_OF = f"as_of lies in [2000-01-01T00:00:00+00:00, {END.isoformat()}]"
EARLY = tuple(f"timestamp is not before {c} was known" for c in ("user_id", "place_id"))
FUTURE = "timestamp is not in the future"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
AS_OF_CASES = [case(AS_OF, as_of=LONG_AGO), case(AS_OF, as_of=datetime(2024, 3, 26, tzinfo=UTC))]

CASES: dict[str, list[Case]] = {
    "users": [
        case("user_id appears once", user_id=0),
        case("user_id is from 0 to 999", user_id=-1),
        case("user_id is from 0 to 999", user_id=1000),
        case("name is not blank", name="  "),
        case("home_city_id is from 0 to 7", home_city_id=8),
        case("home_neighborhood_id is from 0 to 14", home_neighborhood_id=15),
        *vector("cat_pref", 6),
        *vector("fine_pref", C_FINE),
        *vector("vibe_pref", C_VIBE),
        case(AREA_SUM, area_freqs=[]),
        case(AREA_SUM, area_freqs=[(3, 0.9)]),
        case(AREAS, area_freqs=[(3, NAN)]),
        case(*(f"area_freqs has no element {x}" for x in ("below 0", "above 1")), area_freqs=[(1, -1.0), (2, 2.0)]),
        case("area_freqs names at most 5 neighbourhoods", area_freqs=[(i, 0.125 if i else 0.375) for i in range(6)]),
        case("area_freqs names each neighbourhood once", area_freqs=[(3, 0.5), (3, 0.5)]),
        case("area_freqs names no neighbourhood below 0", area_freqs=[(-1, 1.0)]),
        case("area_freqs names no neighbourhood above 14", area_freqs=[(15, 1.0)]),
        case("avg_sessions_per_week is finite and above 0", avg_sessions_per_week=0.0),
        case("avg_sessions_per_week is finite and above 0", avg_sessions_per_week=INF),
        case("avg_sessions_per_week is a number", avg_sessions_per_week=NAN),
        case("avg_views_per_session is finite and above 0", avg_views_per_session=0.0),
        *(
            case(f"{c} is finite and at least 0", **{c: -0.1})
            for c in ("avg_likes_per_session", "avg_saves_per_session", "avg_attends_per_month")
        ),
        *AS_OF_CASES,
        case("name is not blank", "home_city_id is from 0 to 7", AS_OF, name="", home_city_id=-2, as_of=LONG_AGO),
    ],
    "places": [
        case("place_id appears once", place_id=0),
        case("place_id is from 0 to 999", place_id=1000),
        *(case(f"{c} is not blank", **{c: ""}) for c in ("name", "city_name", "neighborhood_name")),
        case("city_id is from 0 to 7", city_id=8),
        case("neighborhood_id is from 0 to 14", neighborhood_id=-1),
        case("latitude is from -90 to 90", latitude=90.5),
        case("longitude is from -180 to 180", longitude=-181.0),
        case(POSITION, latitude=None),
        case(POSITION, longitude=NAN),
        case(POSITION, latitude=NAN, longitude=NAN),
        case("category_ids names a category", ONE_HOT, category_ids=[]),
        case("category_ids names each category once", category_ids=[0, 4, 4]),
        case("category_ids has no element above 5", ONE_HOT, category_ids=[0, 4, 6]),
        case("category_ids has no element below 0", ONE_HOT, category_ids=[-1, 0, 4]),
        case("category_ids has no missing, NaN or infinite element", category_ids=[0, 4, None]),
        case(ONE_HOT, category_ids=[0, 3]),
        case("category_one_hot has 6 elements", category_one_hot=[1.0, 0.0, 0.0, 0.0, 1.0]),
        case("category_one_hot has no missing, NaN or infinite element", category_one_hot=[NAN, 0.0, 0.0, 0.0, 1, 0.0]),
        case("category_one_hot has no element above 1", category_one_hot=[2.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        case("category_one_hot has no element below 0", category_one_hot=[1.0, -1.0, 0.0, 0.0, 1.0, 0.0]),
        *vector("fine_tag_vector", C_FINE),
        case("price_band is from 0 to 4", price_band=5),
        case("typical_time_slot is from 0 to 5", typical_time_slot=6),
        case("base_popularity is finite and above 0", base_popularity=0.0),
        case("avg_daily_visits is finite and at least 0", avg_daily_visits=-1.0),
        case("conversion_rate is from 0 to 1", conversion_rate=1.5),
        case("novelty_score is from 0 to 1", novelty_score=-0.5),
        *AS_OF_CASES,
    ],
    "interactions": [
        case("user_id is among the accepted users", user_id=424_242),
        case("place_id is among the accepted places", place_id=-1),
        case(
            "user_id, place_id, timestamp appears once",
            **{c: interaction(0)[c] for c in ("user_id", "place_id", "timestamp")},
        ),
        case("dwell_time is from 0 to 86400", dwell_time=-1.0),
        case("dwell_time is from 0 to 86400", dwell_time=INF),
        case("dwell_time is a number", dwell_time=NAN),
        *(case(f"{c} is at least 0", **{c: -1}) for c in ("num_likes", "num_saves", "num_shares")),
        case("implicit_rating is from 1 to 5", implicit_rating=0.5),
        case("implicit_rating is from 1 to 5", implicit_rating=5.5),
        # 1970-01-01 was a Thursday
        case(HORIZON, timestamp=LONG_AGO.replace(hour=9), odd=EARLY),
        case(HORIZON, FUTURE, timestamp=NOW + timedelta(minutes=6)),
        case(HORIZON, "time_of_day_bucket agrees with timestamp", timestamp=END),
        case("time_of_day_bucket agrees with timestamp", time_of_day_bucket=2),
        case("time_of_day_bucket agrees with timestamp", timestamp=datetime(2024, 1, 3, 12, tzinfo=UTC)),
        case(
            "time_of_day_bucket is from 0 to 3", "time_of_day_bucket agrees with timestamp", time_of_day_bucket=4
        ),
        case("day_of_week_bucket agrees with timestamp", timestamp=datetime(2024, 1, 6, 9, tzinfo=UTC)),
        case(
            "day_of_week_bucket is from 0 to 1", "day_of_week_bucket agrees with timestamp", day_of_week_bucket=-1
        ),
    ],
    "user_user_edges": [
        case("user_u is among the accepted users", user_u=-5),
        case("user_v is among the accepted users", user_v=424_242),
        case("user_u is less than user_v", user_u=3, user_v=2),
        case("user_u is less than user_v", user_u=3, user_v=3),
        case("user_u, user_v appears once", **pair(0)),
        case("interest_overlap_score is from 0 to 1", interest_overlap_score=1.01),
        case("interest_overlap_score is a number", interest_overlap_score=NAN),
        case("same_neighborhood_freq is from 0 to 1", same_neighborhood_freq=-0.01),
        case("co_attendance_count is at least 0", co_attendance_count=-1),
        *AS_OF_CASES,
    ],
    "friend_labels": [
        case("user_u is among the accepted users", user_u=-5),
        case("user_v is among the accepted users", user_v=424_242),
        case("user_u is less than user_v", user_u=3, user_v=2),
        case("user_u, user_v appears once", **pair(0)),
        case("label_compat is from 0 to 1", label_compat=2),
        case("label_attend is from 0 to 1", "label_attend is at most label_compat", label_attend=2),
        case("label_attend is at most label_compat", label_compat=0, label_attend=1),
        *AS_OF_CASES,
    ],
}  # fmt: skip


def missing(name: str) -> list[Case]:
    floats = [c for c, column in TABLES[name].columns.items() if pa.types.is_floating(column.type)]
    required = [c for c, column in TABLES[name].columns.items() if not column.nullable]
    return [case(f"{c} is {'a number' if c in floats else 'there'}", **{c: None}) for c in required]


@dataclass
class Judged:
    suite: Suite
    cases: list[Case]
    verdict: Verdict
    frame: pa.Table

    @property
    def reasons(self) -> dict[int, str]:
        return dict(zip(*self.verdict.rejected.to_pydict().values(), strict=True))


N_GOOD = 12  # before and after the broken rows


def land_broken(folder: Path) -> dict[str, list[Case]]:
    """Each table with good rows around one broken row a case; users and places 0 to 199 are accepted already."""
    (folder / "lake").mkdir()
    for name in ("users", "places"):
        pq.write_table(table(name, [ROWS[name](i) for i in range(200)]), folder / "lake" / f"{name}.parquet")
    landed = {name: CASES[name] + missing(name) for name in ROWS}
    for name, cases in landed.items():
        make = ROWS[name]
        rows = [make(i) for i in range(2 * N_GOOD + len(cases))]
        for i, c in enumerate(cases):
            rows[N_GOOD + i] |= c.changes
        pq.write_table(table(name, rows), folder / f"{name}.parquet")
    return landed


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    folder = tmp_path_factory.mktemp("judged")
    result = {}
    for name, cases in land_broken(folder).items():
        suite = SUITES[name](BOUNDS)
        with Lake(folder) as lake:
            frame = pa.concat_tables(lake.derive(suite.sql, {"landing": folder / f"{name}.parquet"}))
        result[name] = Judged(suite, cases, check([frame], suite), frame)
    return result


def rules(reason: str) -> set[str]:
    return {part.rsplit(" (got ", 1)[0] for part in reason.split("; ")}


@pytest.mark.parametrize("name", TABLES)
def test_a_broken_row_is_rejected_for_exactly_its_rules(judged: dict[str, Judged], name: str) -> None:
    reasons = judged[name].reasons
    for i, c in enumerate(judged[name].cases):
        reason = reasons.get(N_GOOD + i)
        assert reason is not None, f"accepted: {c}"
        assert rules(reason) == c.broken, c


@pytest.mark.parametrize("name", TABLES)
def test_good_rows_among_broken_ones_pass(judged: dict[str, Judged], name: str) -> None:
    broken = range(N_GOOD, N_GOOD + len(judged[name].cases))
    assert sorted(judged[name].reasons) == list(broken)
    assert judged[name].verdict.accepted == 2 * N_GOOD


@pytest.mark.parametrize("name", TABLES)
def test_every_rule_can_fail_and_is_counted(judged: dict[str, Judged], name: str) -> None:
    expected = {e.name: 0 for e in judged[name].suite.expectations}
    for c in judged[name].cases:
        for rule in c.broken | c.odd:
            expected[rule] += 1
    assert judged[name].verdict.failed == expected
    assert [rule for rule, count in expected.items() if not count] == []


def test_a_reason_says_what_was_found(judged: dict[str, Judged]) -> None:
    said = "; ".join(judged["users"].reasons.values()) + "; ".join(judged["interactions"].reasons.values())
    for part in (
        "cat_pref sums to 1 within 1e-05 (got 0.9)",
        "cat_pref has 6 elements (got 5)",
        "home_city_id is from 0 to 7 (got 8)",
        "user_id appears once (got 0)",
        "avg_sessions_per_week is a number (got nan)",
        "avg_sessions_per_week is a number (got nothing)",
        "name is not blank (got '  ')",
        "user_id is among the accepted users (got 424242)",
        f"{HORIZON} (got 1970-01-01T09:00:00+00:00)",
        "time_of_day_bucket agrees with timestamp (got 2, 0)",
    ):
        assert part in said, part


def test_parts_give_the_verdict_of_the_whole(judged: dict[str, Judged]) -> None:
    j = judged["interactions"]
    parts: Iterator[pa.Table] = (j.frame.slice(i, 7) for i in range(0, j.frame.num_rows, 7))
    verdict = check(parts, j.suite)
    assert verdict.rejected.equals(j.verdict.rejected)
    assert (verdict.rows, verdict.failed, verdict.examples) == (j.verdict.rows, j.verdict.failed, j.verdict.examples)


@pytest.mark.parametrize("name", TABLES)
def test_every_limit_of_the_schema_is_a_rule(name: str) -> None:
    suite = SUITES[name](Bounds())
    limits = {
        (e.kwargs.get("column"), k, v) for e in suite.expectations for k, v in e.kwargs.items() if k != "value_set"
    }
    never_null = {e.kwargs["column"] for e in suite.expectations if e.type == "expect_column_values_to_not_be_null"}
    for column, contract in TABLES[name].columns.items():
        nested = pa.types.is_list(contract.type) or pa.types.is_map(contract.type)
        assert ((f"{column}.size" if nested else column) in never_null) != contract.nullable
        below, above = (f"{column}.lowest", f"{column}.highest") if nested else (column, column)
        if contract.references:
            assert f"{column}.known" in {e.kwargs.get("column") for e in suite.expectations}
        elif contract.low is not None:
            assert (below, "min_value", contract.low) in limits
            assert nested or (column, "strict_min", contract.exclusive_low) in limits
        if contract.high is not None:
            assert (above, "max_value", contract.high) in limits
        if contract.length is not None:
            length = getattr(CITY.widths, contract.length)
            assert {(f"{column}.size", k, length) for k in ("min_value", "max_value")} <= limits
        if contract.total is not None:
            assert (f"{column}.sum", "min_value", contract.total - 1e-5) in limits
    assert any(set(TABLES[name].key) <= set(e.columns) and "key.occurrence" in e.columns for e in suite.expectations)


@pytest.mark.parametrize("name", TABLES)
def test_rules_have_one_name_and_a_reason(name: str) -> None:
    suite = SUITES[name](Bounds())
    names = [e.name for e in suite.expectations]
    assert len(names) == len(set(names))
    assert all(len(e.why) > 15 and e.why.endswith(".") for e in suite.expectations)
    columns: dict[str, str] = {}
    for e in suite.expectations:
        for column, sql in e.columns.items():
            assert columns.setdefault(column, sql) == sql, f"two meanings of {column}"


def test_the_first_row_of_a_key_stays(judged: dict[str, Judged]) -> None:
    assert 0 not in judged["users"].reasons
    assert judged["users"].reasons[N_GOOD] == "user_id appears once (got 0)"


def test_a_rule_that_cannot_be_checked_is_an_error_not_a_pass() -> None:
    rule = Expectation(
        "x holds", "expect_column_values_to_be_between", {"column": "x", "min_value": 0}, ".", {}, ("x",)
    )
    frame = pa.table({"row": pa.array([0], pa.int64()), "x": ["text"]})
    with pytest.raises(DataError, match="'x holds' could not be checked"):
        check([frame], Suite(USERS, (rule,)))
    with pytest.raises(DataError, match="'x holds' could not be checked"):
        check([frame.rename_columns(["row", "y"])], Suite(USERS, (rule,)))


def test_no_rows_is_a_verdict(judged: dict[str, Judged]) -> None:
    assert check([], SUITES["users"](BOUNDS)).rows == 0
    empty = check([judged["users"].frame.slice(0, 0)], SUITES["users"](BOUNDS))
    assert (empty.rows, empty.accepted) == (0, 0)


class TestBounds:
    SIZES: ClassVar = {"cities": 3, "neighborhoods": 40}

    def test_without_a_source_anything_sane(self) -> None:
        bounds = Bounds.of({}, self.SIZES)
        assert (bounds.start, bounds.end) == (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
        assert (bounds.cities, bounds.neighborhoods, bounds.users, bounds.places) == (8, 40, None, None)

    def test_the_source_rules(self) -> None:
        source = {
            "start": "2024-01-01",
            "end": "2024-02-01T02:00:00+02:00",
            "cities": 2,
            "neighborhoods": 4,
            "users": 9,
        }
        bounds = Bounds.of(source, self.SIZES)
        assert (bounds.start, bounds.end) == (START, datetime(2024, 2, 1, tzinfo=UTC))
        assert (bounds.cities, bounds.neighborhoods, bounds.users) == (2, 4, None)
        assert Bounds.of(source | {"synthetic": True}, self.SIZES).users == 9

    @pytest.mark.parametrize(
        "source",
        [{"start": "yesterday"}, {"start": 5}, {"cities": "many"}, {"start": "2024-01-02", "end": "2024-01-02"}],
    )
    def test_a_broken_source_is_named(self, source: Row) -> None:
        with pytest.raises(DataError, match=r"source\.json"):
            Bounds.of(source, self.SIZES)

    def test_sizes_are_the_data_sets_own(self, tmp_path: Path) -> None:
        files = {name: tmp_path / f"{name}.parquet" for name in ("users", "places")}
        pq.write_table(
            table("users", [user(i, home_city_id=i, home_neighborhood_id=0) for i in range(9)]), files["users"]
        )
        cities = [9, 9, 9_999]
        pq.write_table(table("places", [place(i, city_id=c) for i, c in enumerate(cities)]), files["places"])
        with Lake(tmp_path) as lake:
            sizes = next(lake.derive(SIZES_SQL, files)).to_pylist()[0]
        assert sizes == {"cities": 11, "neighborhoods": 3}  # so city 9 passes and 9,999 does not
