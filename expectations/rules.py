"""The kinds of rule that suites are made of; every limit comes from `recsys.schemas`, so rule and contract agree."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from recsys.constants import N_CITIES, N_NEIGHBORHOODS_PER_CITY
from recsys.errors import DataError
from recsys.quality import Expectation
from recsys.schemas import SKEW, Table
from recsys.taxonomy import CITY, Widths

TOLERANCE: Final = 1e-5  # of a sum; summed in double, float32 weights of a normalised vector are within 1e-7
LARGEST: Final = float(np.finfo(np.float32).max)  # a float above it is infinite
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)

_BETWEEN: Final = "expect_column_values_to_be_between"
_PRESENT: Final = "expect_column_values_to_not_be_null"
_IN_SET: Final = "expect_column_values_to_be_in_set"
# A pair with an empty half is judged by the rule that nothing is empty.
_BOTH: Final = {"ignore_row_if": "either_value_is_missing"}

# Ids are dense, so one that is not below the number of distinct ids is a mistake. A small world may leave out a city or
# two, hence no less than the defaults.
SIZES_SQL: Final = """
SELECT (SELECT count(DISTINCT city) FROM
        (SELECT city_id AS city FROM places UNION ALL SELECT home_city_id FROM users)) AS cities,
       (SELECT count(DISTINCT area) FROM
        (SELECT neighborhood_id AS area FROM places UNION ALL SELECT home_neighborhood_id FROM users)) AS neighborhoods
"""


@dataclass(frozen=True)
class Bounds:
    """Limits that are the data set's own (amendment 8).

    Attributes:
        start, end: the horizon [start, end); without `source.json` anything from 2000 to 2100.
        now: the moment of judging: nothing can have happened after it.
        cities, neighborhoods: how many there are; ids count from 0.
        users, places: how many there are, where ids are known to count from 0; None: any id.
        widths: how many categories, tags and vibes the data set's taxonomy names.
        local_time: buckets of hour and weekday are those of the place's clock, which timestamps in UTC do not tell.
    """

    start: datetime = EARLIEST
    end: datetime = LATEST
    now: datetime = LATEST
    cities: int = N_CITIES
    neighborhoods: int = N_NEIGHBORHOODS_PER_CITY
    users: int | None = None
    places: int | None = None
    local_time: bool = False
    widths: Widths = CITY.widths

    @classmethod
    def of(cls, source: Mapping[str, Any], sizes: Mapping[str, int], widths: Widths = CITY.widths) -> Self:
        """The limits of one landed data set.

        Args:
            source: its `source.json`: `start`, `end`, `cities`, `neighborhoods` hold where they are said; `users` and
                `places` where `synthetic` says that ids are dense.
            sizes: the row that `SIZES_SQL` gives.
            widths: of its taxonomy.

        Raises:
            DataError: a moment or number in `source` cannot be read.
        """
        dense = source if source.get("synthetic") else {}
        try:
            bounds = cls(
                start=_moment(source.get("start"), EARLIEST),
                end=_moment(source.get("end"), LATEST),
                cities=int(source.get("cities") or max(sizes["cities"], N_CITIES)),
                neighborhoods=int(source.get("neighborhoods") or max(sizes["neighborhoods"], N_NEIGHBORHOODS_PER_CITY)),
                users=int(dense["users"]) if "users" in dense else None,
                places=int(dense["places"]) if "places" in dense else None,
                local_time=bool(source.get("local_time")),
                widths=widths,
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"source.json: {error}") from error
        if bounds.start >= bounds.end:
            raise DataError(f"source.json: start must be before end (got {bounds.start}, {bounds.end})")
        return bounds


def present(table: Table, *columns: str, why: str) -> list[Expectation]:
    """No value is missing; of a float: nor NaN."""
    rules = []
    for column in columns:
        type_ = table.columns[column].type
        frame, sql = column, f'"{column}"'
        if _nested(type_):
            frame, sql = f"{column}.size", f"{'cardinality' if pa.types.is_map(type_) else 'len'}({sql})"
        name = f"{column} is a number" if pa.types.is_floating(type_) else f"{column} is there"
        rules.append(Expectation(name, _PRESENT, {"column": frame}, why, {frame: sql}, (frame,)))
    return rules


def text(*columns: str, why: str) -> list[Expectation]:
    """Text is more than blanks."""
    return [
        Expectation(
            f"{column} is not blank",
            _BETWEEN,
            {"column": f"{column}.letters", "min_value": 1},
            why,
            {f"{column}.letters": f'length(trim("{column}"))', column: f'"{column}"'},
            (column,),
        )
        for column in columns
    ]


def within(table: Table, *columns: str, why: str, below: int | None = None) -> list[Expectation]:
    """Values are in the contract's range and finite.

    Args:
        table: the contract.
        columns: scalar columns.
        why: the reason.
        below: exclusive upper bound that the data set itself gives.
    """
    rules = []
    for column in columns:
        contract = table.columns[column]
        low, high = contract.low, contract.high
        kwargs = {"column": column, "min_value": low, "strict_min": contract.exclusive_low}
        said = f"above {low:g}" if contract.exclusive_low else f"at least {low:g}"
        if below is not None:
            kwargs |= {"max_value": below, "strict_max": True}
            said = f"from {low:g} to {below - 1:g}"
        elif high is not None:
            kwargs |= {"max_value": high}
            said = f"from {low:g} to {high:g}"
        elif pa.types.is_floating(contract.type):
            kwargs |= {"max_value": LARGEST}
            said = f"finite and {said}"
        rules.append(Expectation(f"{column} is {said}", _BETWEEN, kwargs, why, {column: f'"{column}"'}, (column,)))
    return rules


def elements(table: Table, column: str, bounds: Bounds, *, why: str) -> list[Expectation]:
    """A list or map has the contract's length, its elements are finite and in range, and sum to what they should."""
    contract = table.columns[column]
    is_map = pa.types.is_map(contract.type)
    values = f'map_values("{column}")' if is_map else f'"{column}"'
    odd = "e IS NULL OR NOT isfinite(e)"
    rules = []

    def rule(said: str, frame: str, sql: str, **kwargs: Any) -> None:
        frame = f"{column}.{frame}"
        rules.append(
            Expectation(f"{column} {said}", _BETWEEN, {"column": frame, **kwargs}, why, {frame: sql}, (frame,))
        )

    if contract.length is not None:
        length = contract.length if isinstance(contract.length, int) else getattr(bounds.widths, contract.length)
        rule(f"has {length} elements", "size", f"len({values})", min_value=length, max_value=length)
    said = "has no missing, NaN or infinite element"
    rule(said, "odd", f"len(list_filter({values}::DOUBLE[], lambda e: {odd}))", max_value=0)
    if contract.low is not None:
        rule(f"has no element below {contract.low:g}", "lowest", f"list_min({values})", min_value=contract.low)
    high = contract.high if contract.position is None else getattr(bounds.widths, contract.position) - 1
    if high is not None:
        rule(f"has no element above {high:g}", "highest", f"list_max({values})", max_value=high)
    if contract.total is not None:
        # an empty list sums to nothing, and nothing would pass
        total = f"CASE WHEN len({values}) = 0 THEN 0 ELSE list_sum({values}::DOUBLE[]) END"
        low, high = contract.total - TOLERANCE, contract.total + TOLERANCE
        rule(f"sums to {contract.total:g} within {TOLERANCE:g}", "sum", total, min_value=low, max_value=high)
    return rules


def known(table: Table, *columns: str, why: str) -> list[Expectation]:
    """References resolve among the rows that were accepted."""
    rules = []
    for column in columns:
        target, key = str(table.columns[column].references).split(".")
        frame = f"{column}.known"
        columns_ = {frame: f'"{column}" IN (SELECT {key} FROM {target})', column: f'"{column}"'}
        kwargs = {"column": frame, "value_set": [True]}
        rules.append(Expectation(f"{column} is among the accepted {target}", _IN_SET, kwargs, why, columns_, (column,)))
    return rules


def unique(table: Table, *, why: str) -> Expectation:
    """A key appears once. The first row of it stays: to reject all would lose what hangs on them."""
    key = ", ".join(f'"{column}"' for column in table.key)
    columns = {"key.occurrence": f"row_number() OVER (PARTITION BY {key} ORDER BY file_row_number)"}
    columns |= {column: f'"{column}"' for column in table.key}
    kwargs = {"column": "key.occurrence", "max_value": 1}
    return Expectation(f"{', '.join(table.key)} appears once", _BETWEEN, kwargs, why, columns, table.key)


def in_horizon(column: str, bounds: Bounds, *, why: str) -> Expectation:
    """A moment lies in [start, end)."""
    kwargs = {"column": column, "min_value": bounds.start, "max_value": bounds.end, "strict_max": True}
    name = f"{column} lies in [{bounds.start.isoformat()}, {bounds.end.isoformat()})"
    return Expectation(name, _BETWEEN, kwargs, why, {column: f'"{column}"'}, (column,))


def not_to_come(column: str, bounds: Bounds) -> Expectation:
    """A moment is past, but for a little skew of clocks."""
    kwargs = {"column": column, "max_value": bounds.now + SKEW}
    why = "What has not happened yet is a clock that is wrong; learned from, it is the future leaking into the past."
    name = f"{column} is not in the future"
    return Expectation(name, _BETWEEN, kwargs, why, {column: f'"{column}"'}, (column,))


def known_since(bounds: Bounds, column: str = "as_of") -> Expectation:
    """A moment is no later than the end of the horizon, and no nonsense."""
    kwargs = {"column": column, "min_value": EARLIEST, "max_value": bounds.end}
    name = f"{column} lies in [{EARLIEST.isoformat()}, {bounds.end.isoformat()}]"
    why = "A row is used from this moment on; 1970 is a lost date, and after the end nothing can use it."
    return Expectation(name, _BETWEEN, kwargs, why, {column: f'"{column}"'}, (column,))


def after_known(table: Table, column: str, *, moment: str, why: str) -> Expectation:
    """What a row refers to was known by the row's moment; a warning."""
    target, key = str(table.columns[column].references).split(".")
    since = f'(SELECT min(k.as_of) FROM {target} k WHERE k.{key} = landing."{column}")'
    columns = {f"{column}.early": f'coalesce("{moment}" < {since}, false)::INT', moment: f'"{moment}"'}
    kwargs = {"column": f"{column}.early", "max_value": 0}
    name = f"{moment} is not before {column} was known"
    return warning(Expectation(name, _BETWEEN, kwargs, why, columns, (moment,)))


def warning(expectation: Expectation) -> Expectation:
    """The same rule, whose breakers are kept."""
    return replace(expectation, severity="warning")


def less(smaller: str, greater: str, *, why: str, or_equal: bool = False) -> Expectation:
    """One column is less than another."""
    kwargs = {"column_A": greater, "column_B": smaller, "or_equal": or_equal, **_BOTH}
    name = f"{smaller} is {'at most' if or_equal else 'less than'} {greater}"
    columns = {smaller: f'"{smaller}"', greater: f'"{greater}"'}
    type_ = "expect_column_pair_values_a_to_be_greater_than_b"
    return Expectation(name, type_, kwargs, why, columns, (smaller, greater))


def equal(column: str, what: str, sql: str, *, why: str, of: str | None = None) -> Expectation:
    """A column is what other columns of the row say.

    Args:
        column: the column.
        what: what it agrees with, in words.
        sql: the value that it should have.
        why: the reason.
        of: what of the column is compared, as SQL; default: its value.
    """
    columns = {f"{column}.compared": of or f'"{column}"', f"{column}.expected": sql}
    kwargs = {"column_A": f"{column}.compared", "column_B": f"{column}.expected", **_BOTH}
    type_ = "expect_column_pair_values_to_be_equal"
    return Expectation(f"{column} agrees with {what}", type_, kwargs, why, columns, tuple(columns))


def derived(name: str, frame: str, sql: str, *, why: str, shows: tuple[str, ...] = (), **limits: Any) -> Expectation:
    """A scalar that SQL makes of a row lies within limits (`min_value`, `max_value`, `strict_max`)."""
    columns = {frame: sql} | {column: f'"{column}"' for column in shows}
    return Expectation(name, _BETWEEN, {"column": frame, **limits}, why, columns, shows or (frame,))


def _nested(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_map(type_))


def _moment(value: str | None, default: datetime) -> datetime:
    if value is None:
        return default
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
