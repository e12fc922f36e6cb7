"""Feature views made anew, as far back as anything changed, and no further.

A row stamped t depends on nothing after t. So of a lake that differs from the one that the views were made from, only
rows stamped after the day of the earliest difference are computed; a row that arrives two days late is such a
difference. Rows that were there and are gone or altered, other definitions and another beginning of the data make
everything again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset, field

from recsys.atomic import write_json
from recsys.errors import DataError
from recsys.features import last_of_each
from recsys.lake import EVENTS, Lake
from recsys.schemas import TABLES

MADE: Final = "made.json"
_SEEN: Final = "seen"  # copies of the tables that the views were made from
_WATCHED: Final = {"users": "as_of", "places": "as_of", "user_user_edges": "as_of", "interactions": '"timestamp"'}
_LAYOUT: Final = "parts"  # of the views' files; views that lie otherwise are made again
_STAMP: Final = "event_timestamp"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_ROWS: Final = 200_000  # at a time; a list of states takes about 200 bytes
_MANY_PARTS: Final = 60  # two months of days; a reader opens each


class Engine(Protocol):
    """What runs the views' queries: the lake itself, or `recsys.spark.Spark`."""

    def write(
        self, sql: str, path: Path, params: Any = None, *, files: Mapping[str, Path | Sequence[Path]] | None = None
    ) -> int:
        """Write a query's rows into one parquet file, atomically and in the query's order; how many there are."""

    def derive(self, sql: str, files: Mapping[str, Path], *, rows: int = 500_000) -> Iterator[pa.Table]:
        """Query parquet files beside the lake's; tables of at most `rows` rows."""


@dataclass(frozen=True)
class Made:
    """What the feature views were made from.

    Attributes:
        source: fingerprint of lake, definitions and end.
        queries: fingerprint of the definitions alone.
        start, end: midnights; the views know [start, end).
        before: `source` of the views that these continue; None where all was made.
        after: only rows stamped later are other than theirs.
        landed: position in the event log up to which its events are in the lake.
    """

    source: str
    queries: str
    start: datetime
    end: datetime
    landed: int
    before: str | None = None
    after: datetime | None = None

    @classmethod
    def read(cls, features: Path) -> Self | None:
        """What a folder of views says; None where it says nothing that can be read."""
        try:
            found = json.loads((features / MADE).read_text(encoding="utf-8"))
            moments = {k: found[k] and datetime.fromisoformat(found[k]) for k in ("start", "end", "after")}
            return cls(**{**found, **moments})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, features: Path) -> None:
        """Say it."""
        write_json(features / MADE, asdict(self))


def wanted(
    lake: Lake, queries: Mapping[str, str], definitions: str, start: datetime, end: datetime, landed: int
) -> Made:
    """What views of this lake, by these definitions, up to this end would be made from."""
    said = hashlib.sha256(json.dumps([_LAYOUT, definitions, dict(queries)]).encode()).hexdigest()
    source = hashlib.sha256(json.dumps([lake.fingerprint(), start.isoformat(), end.isoformat(), said]).encode())
    return Made(source.hexdigest(), said, start, end, landed)


def continues(lake: Lake, features: Path, new: Made) -> tuple[Made | None, str]:
    """How the views that are there can be continued.

    Args:
        lake: the accepted tables.
        features: the folder of the views.
        new: what they shall be made from.

    Returns:
        `new` with `before` and `after`, or None where all must be made, and the reason in words.
    """
    old = Made.read(features)
    if old is None:
        return None, "nothing was made before"
    if old.queries != new.queries:
        return None, "the definitions changed"
    if old.start != new.start or new.end < old.end:
        return None, "the data begin or end earlier"
    earliest = old.end
    for table, moment in _WATCHED.items():
        seen = features / _SEEN / f"{table}.parquet"
        if not seen.exists():
            return None, f"there is no copy of {table}"
        try:
            gone, first = _difference(lake, table, moment, seen)
        except DataError:
            return None, f"{table} has other columns"
        if gone:
            return None, f"{gone:,} rows of {table} that were there are gone or altered"
        if first is not None:
            earliest = min(earliest, first)
    after = earliest.replace(hour=0, minute=0, second=0, microsecond=0)
    if after <= new.start:
        return None, "something changed on the first day"
    continued = Made(new.source, new.queries, new.start, new.end, new.landed, old.source, after)
    return continued, f"rows after {after:%Y-%m-%d}"


def remember(lake_dir: Path, features: Path) -> None:
    """Copy the tables that views are made from beside them."""
    (features / _SEEN).mkdir(parents=True, exist_ok=True)
    for name in (*(f"{table}.parquet" for table in _WATCHED), EVENTS):
        if (lake_dir / name).exists():
            shutil.copyfile(lake_dir / name, features / _SEEN / name)


def superseded(features: Path, made: Made) -> list[Path]:
    """Parts of views that do not stay as they are once views made so take their places."""
    return [part for view in features.glob("*.parquet") for part in _parts(view) if part not in _plan(view, made)[0]]


def compute(
    lake: Lake, view: str, query: str, made: Made, features: Path, folder: Path, others: Mapping[str, Sequence[Path]],
    engine: Engine | None = None,
) -> tuple[list[Path], Path]:  # fmt: skip
    """Write what is new of a view.

    A view is a folder of parts, each named by the day after which its rows are stamped, up to the next part's day; all
    of its rows in the order of their parts are the view. So rows that stay are not written again, but for those of a
    part that `made.after` cuts in two, and of parts that became too many.

    Args:
        lake: the accepted tables.
        view: its name.
        query: its SQL.
        made: what it is made from; with `after`, the view in `features` is continued.
        features: the views as they were.
        folder: where to write.
        others: parts of views that are new already, for queries that read them.
        engine: runs the query; default: the lake. What is only copied goes through the lake.

    Returns:
        All parts of the view as it shall be, and the last of them: that of the new rows, though there be none.
    """
    target = folder / f"{view}.parquet"
    stay, again = _plan(features / target.name, made)
    part = target / _part_name(made.after or made.start)
    values: dict[str, Any] = {"start": made.start, "after": made.after or made.start, "end": made.end}
    params = {name: value for name, value in values.items() if f"${name}" in query}
    engine = engine or lake
    if made.after is None:
        engine.write(query, part, params, files=others)
        return [part], part
    after = {"after": made.after}
    if "$after" in query:
        engine.write(query, part, params, files=others)
    else:  # small, and its order is kept when what it gave is read again
        whole = folder / ".whole" / target.name
        engine.write(query, whole, params, files=others)
        lake.write("SELECT * FROM whole WHERE event_timestamp > $after", part, after, files={"whole": whole})
    if again:
        older = target / again[0].name
        lake.write("SELECT * FROM old WHERE event_timestamp <= $after", older, after, files={"old": again})
        stay = [*stay, older]
    return [*stay, part], part


def last_rows(view: Path, keys: Sequence[str], after: datetime) -> Iterator[pa.Table]:
    """The last row of every key among the rows stamped after a moment: keys, event_timestamp and state, some at a time.

    Which they are takes the keys alone; the states, ten times as large, are never all in memory.
    """
    rows, later = dataset(view), field(_STAMP) > pa.scalar(after, pa.timestamp("us", "UTC"))
    names = rows.to_table(columns=list(keys), filter=later)
    last = last_of_each([names[name].to_numpy() for name in keys])
    del names
    first, parts, held = 0, list[pa.Table](), 0
    columns = [*keys, _STAMP, "state"]
    for batch in rows.to_batches(columns=columns, filter=later, batch_readahead=1, fragment_readahead=1):
        begin, end = np.searchsorted(last, [first, first + batch.num_rows])
        parts.append(pa.Table.from_batches([batch]).take(last[begin:end] - first))
        first, held = first + batch.num_rows, held + int(end - begin)
        if held >= _ROWS:
            yield pa.concat_tables(parts)
            parts, held = [], 0
    if parts:
        yield pa.concat_tables(parts)


def _parts(view: Path) -> list[Path]:
    return sorted(view.glob("*.parquet"))


def _part_name(after: datetime) -> str:
    return f"{after:%Y-%m-%d}.parquet"


def _plan(view: Path, made: Made) -> tuple[list[Path], list[Path]]:
    """Parts that stay as they are, and those of which the rows that stay are to be written again, as one part."""
    if made.after is None:
        return [], []
    older = [part for part in _parts(view) if part.name < _part_name(made.after)]
    again = len(older) if len(older) >= _MANY_PARTS else int(_last(older[-1]) > made.after)
    return older[: len(older) - again], older[len(older) - again :]


def _last(part: Path) -> datetime:
    """The latest moment in a part, by its statistics; profiles may come with stamps after the end of what is known."""
    footer = pq.read_metadata(part)
    groups = (footer.row_group(i) for i in range(footer.num_row_groups))
    index = next(i for i in range(footer.num_columns) if footer.schema.column(i).path == _STAMP)
    return max((group.column(index).statistics.max for group in groups), default=_NEVER)


def _difference(lake: Lake, table: str, moment: str, seen: Path) -> tuple[int, datetime | None]:
    """How many rows are gone or altered, and the earliest moment of one that is new."""
    columns = ", ".join(f'"{name}"' for name in TABLES[table].columns)
    files, before = {"seen": seen}, f"SELECT {columns} FROM seen"
    if table == "interactions" and (events := seen.with_name(EVENTS)).exists():
        files["seen_events"] = events
        before = f"SELECT {columns} FROM seen UNION ALL SELECT {columns} FROM seen_events"
    # A sum of hashes a day tells which days differ at all; rows are matched one by one on those only.
    sql = f"""
    WITH sides AS (
        SELECT hash({columns}) AS h, {moment} AS moment, {moment}::DATE AS day, 1 AS side
        FROM (SELECT {columns} FROM {table})
        UNION ALL SELECT hash({columns}), {moment}, {moment}::DATE, -1 FROM ({before})
    ),
    days AS (SELECT day FROM sides GROUP BY day HAVING sum(side) != 0 OR sum(side * h::HUGEINT) != 0)
    SELECT count(*) FILTER (n < 0)::BIGINT AS gone, epoch_us(min(moment) FILTER (n > 0)) AS first FROM (
        SELECT h, any_value(moment) AS moment, sum(side) AS n
        FROM sides SEMI JOIN days USING (day) GROUP BY h HAVING sum(side) != 0
    )"""
    row = next(lake.derive(sql, files)).to_pylist()[0]
    first = None if row["first"] is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row["first"])
    return row["gone"], first
