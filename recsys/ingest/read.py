"""Sources → events, places, users, friendships and rejects on the workbench, ids still the source's own text."""

import difflib
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from recsys.errors import DataError
from recsys.ingest.mapping import Events, Friendships, Mapping, Places, Source, Users, _Table
from recsys.schemas import SKEW
from recsys.workbench import Workbench, quoted, reading, text

_TABLES: Final = """
CREATE TABLE events (source INTEGER, user VARCHAR, place VARCHAR, ts TIMESTAMPTZ, local TIMESTAMP, kind VARCHAR,
                     dwell DOUBLE, rating DOUBLE, category VARCHAR, latitude DOUBLE, longitude DOUBLE);
CREATE TABLE places (source INTEGER, place VARCHAR, name VARCHAR, category VARCHAR, grp VARCHAR, price INTEGER,
                     neighborhood VARCHAR, latitude DOUBLE, longitude DOUBLE);
CREATE TABLE users (source INTEGER, user VARCHAR, name VARCHAR);
CREATE TABLE friendships (source INTEGER, a VARCHAR, b VARCHAR, known VARCHAR, since TIMESTAMPTZ);
CREATE TABLE rejects (source VARCHAR, section VARCHAR, file VARCHAR, row BIGINT, reason VARCHAR, content VARCHAR);
"""
NAMES: Final = "string_split(category, chr(31))"  # a place's categories, kept as one text
_TEXT_TIME: Final = r"(Z|[+-]\d\d(:?\d\d)?)$"  # ends in an offset, after a time of day
_NUMBERS: Final = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
    "FLOAT", "DOUBLE", "DECIMAL",
)  # fmt: skip


def read_sources(bench: Workbench, mapping: Mapping, now: datetime | None) -> None:
    """Read every source of a mapping.

    Args:
        bench: gets the five tables.
        mapping: what to read.
        now: events after it, but for a little skew of clocks, are rejected; None: any moment will do.

    Raises:
        ConfigError: a pattern that matches no file.
        DataError: a file cannot be read, a column is missing or of a type that cannot be what it is mapped to; names
            the source, the section, the file and the column.
    """
    for statement in _TABLES.split(";\n")[:-1]:
        bench.run(statement)
    # a relative path in a query starts where the mapping lies, as those of `files` do
    bench.run(f"SET file_search_path = {text(str(mapping.folder.resolve()))}")
    for number, source in enumerate(mapping.source):
        _events(bench, mapping, number, source, now)
        if source.places:
            _places(bench, mapping, number, source, source.places)
        if source.users:
            _users(bench, mapping, number, source, source.users)
        for friendships in source.friendships:
            _friendships(bench, mapping, number, source, friendships)


class _Section:
    """One section of a source as a view `raw`, and its columns by what they are mapped to."""

    def __init__(self, bench: Workbench, mapping: Mapping, source: Source, name: str, table: _Table) -> None:
        self.bench, self.table = bench, table
        self.where = f"{source.name}.{name}"
        if table.query is not None:
            self.file, relation = "query", f"({table.query.strip().rstrip(';')}\n)"
        else:
            files = mapping.files(table)
            self.file, relation = _named(files), reading(files, table.encoding)
            for path in files:
                if path.stat().st_size == 0:
                    raise DataError(f"{self.where}: {path.name} is empty")
        try:
            self.columns = bench.columns(relation)
            bench.run(f"CREATE OR REPLACE TABLE raw AS SELECT row_number() OVER () AS _row, * FROM {relation}")
        except DataError as error:
            raise DataError(f"{self.where}: {self.file} cannot be read: {_plain(str(error))}") from error
        if not bench.one("SELECT count(*) FROM raw"):
            raise DataError(f"{self.where}: {self.file} holds no row")

    def column(self, key: str) -> str | None:
        """The quoted column that a key of the section names; None where it names none."""
        name = getattr(self.table, key)
        if name is None:
            return None
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{self.where}.{key}: no column {name!r} in {self.file}{hint} (got {list(self.columns)})")
        return quoted(name)

    def identifier(self, key: str) -> str:
        """An id as text: integers, strings and UUIDs as they are written; blank is none."""
        column, type_ = str(self.column(key)), self.columns[getattr(self.table, key)]
        if type_.startswith(("STRUCT", "MAP", "BOOLEAN", "TIMESTAMP", "DATE", "DOUBLE", "FLOAT")) or type_.endswith(
            "[]"
        ):
            raise DataError(f"{self.where}.{key}: ids are integers, strings or UUIDs (got column {column} of {type_})")
        return f"nullif(trim({column}::VARCHAR), '')"

    def words(self, key: str) -> str:
        """Text, or NULL where nothing is mapped."""
        column = self.column(key)
        return "NULL::VARCHAR" if column is None else f"nullif(trim({column}::VARCHAR), '')"

    def categories(self) -> str:
        """The names of a category column as one text, `NAMES` apart; NULL where there are none."""
        assert isinstance(self.table, Events | Places)
        column, separator = self.column("category"), self.table.category_separator
        if column is None:
            return "NULL::VARCHAR"
        if self.columns[str(self.table.category)].endswith("[]"):
            names = f"{column}::VARCHAR[]"
        elif separator:
            names = f"string_split({column}::VARCHAR, {text(separator)})"
        else:
            return self.words("category")
        blank = "lambda name: coalesce(trim(name), '') != ''"
        return f"nullif(array_to_string(list_transform(list_filter({names}, {blank}), lambda n: trim(n)), chr(31)), '')"

    def number(self, key: str) -> str:
        """A number, or NULL where nothing is mapped."""
        column = self.column(key)
        if column is None:
            return "NULL::DOUBLE"
        type_ = self.columns[getattr(self.table, key)]
        if not type_.startswith((*_NUMBERS, "VARCHAR")):
            raise DataError(f"{self.where}.{key}: column {column} must be a number (got {type_})")
        if type_ == "VARCHAR":
            wrong = self.bench.rows(
                f"SELECT _row, {column} AS value FROM raw WHERE {column} IS NOT NULL AND trim({column}) != ''"
                f" AND try_cast({column} AS DOUBLE) IS NULL ORDER BY _row LIMIT 1"
            )
            if wrong:
                row, value = wrong[0]["_row"], wrong[0]["value"]
                raise DataError(f"{self.where}.{key}: row {row} of {self.file} is no number (got {value!r})")
        return f"try_cast({column} AS DOUBLE)"

    def moment(self, key: str, zone: str) -> str:
        """A TIMESTAMPTZ; NULL where a text is no moment.

        Naive moments are wall clock in the source's zone; numbers are seconds, milliseconds or microseconds since 1970
        by their size.
        """
        column, type_ = str(self.column(key)), self.columns[getattr(self.table, key)]
        if type_ == "TIMESTAMP WITH TIME ZONE":
            return column
        if type_.startswith(("TIMESTAMP", "DATE")):
            return f"({column}::TIMESTAMP AT TIME ZONE {text(zone)})"
        digits = rf"regexp_full_match(trim({column}), '\d+(\.\d+)?')"
        if type_ == "VARCHAR" and self.bench.one(f"SELECT coalesce(bool_and({digits}), FALSE) FROM raw"):
            column, type_ = f"try_cast({column} AS DOUBLE)", "DOUBLE"
        if type_.startswith(_NUMBERS):
            micros = f"CASE WHEN abs({column}) > 1e14 THEN 1 WHEN abs({column}) > 1e11 THEN 1000 ELSE 1000000 END"
            return f"make_timestamptz(({column} * {micros})::BIGINT)"
        if type_ != "VARCHAR":
            raise DataError(f"{self.where}.{key}: column {column} must be a moment (got {type_})")
        zoned = f"regexp_matches(trim({column}), {text(_TEXT_TIME)}) AND contains({column}, ':')"
        # what is no moment at all is rejected later, by its row
        found = self.bench.rows(
            f"SELECT count(*) FILTER ({zoned}) AS zoned, count(*) AS given, min(_row) FILTER (NOT ({zoned})) AS first "
            f"FROM raw WHERE try_cast({column} AS TIMESTAMPTZ) IS NOT NULL"
        )[0]
        if 0 < found["zoned"] < found["given"]:
            raise DataError(
                f"{self.where}.{key}: mixed time zones in {self.file}: {found['zoned']} of {found['given']} values "
                f"carry one and the others do not (got none in row {found['first']}): write all of them one way"
            )
        if found["zoned"]:
            return f"try_cast({column} AS TIMESTAMPTZ)"
        return f"(try_cast({column} AS TIMESTAMP) AT TIME ZONE {text(zone)})"

    def reject(self, source: Source, section: str, condition: str, reason: str) -> None:
        """Move rows out of `raw` into `rejects`, with the reason (an SQL text) and all that they held."""
        self.bench.run(
            f"INSERT INTO rejects SELECT {text(source.name)}, {text(section)}, {text(self.file)}, _row, {reason}, "
            f"to_json(raw)::VARCHAR FROM raw WHERE {condition} ORDER BY _row"
        )
        self.bench.run(f"DELETE FROM raw WHERE {condition}")

    def must_have(self, source: Source, section: str, key: str, value: str) -> None:
        """Reject rows without a value."""
        column = str(self.column(key))
        what = f"concat({text(key)}, ' is missing or no {'moment' if key in ('time', 'since') else 'id'} (got ', "
        self.reject(source, section, f"({value}) IS NULL", f"{what}coalesce({column}::VARCHAR, 'nothing'), ')')")


def _events(bench: Workbench, mapping: Mapping, number: int, source: Source, now: datetime | None) -> None:
    table: Events = source.events
    raw = _Section(bench, mapping, source, "events", table)
    user, place, ts = raw.identifier("user"), raw.identifier("place"), raw.moment("time", source.timezone)
    kind, rating = raw.column("kind"), raw.number("rating")
    others = [raw.number(key) for key in ("dwell", "latitude", "longitude")]
    category = raw.categories()
    ours = text(table.default_kind)
    if kind is not None:
        known = [*table.kinds, *("view", "like", "save", "share", "attended")]
        names = ", ".join(text(k) for k in known)
        unknown = bench.rows(
            f"SELECT {kind}::VARCHAR AS name, count(*) AS n FROM raw WHERE {kind}::VARCHAR NOT IN ({names}) "
            "GROUP BY ALL ORDER BY n DESC, name"
        )
        if unknown:
            said = ", ".join(f"{u['name']!r} {u['n']:,} times" for u in unknown[:5])
            raise DataError(f'{raw.where}.kinds: what is an event of this name? (got {said}): map it, or to "ignore"')
        cases = " ".join(f"WHEN {text(name)} THEN {text(k)}" for name, k in table.kinds.items())
        ours = (
            f"CASE {kind}::VARCHAR {cases} ELSE coalesce({kind}::VARCHAR, {ours}) END"
            if cases
            else f"coalesce({kind}::VARCHAR, {ours})"
        )
    for key, value in (("user", user), ("place", place), ("time", ts)):
        raw.must_have(source, "events", key, value)
    if now is not None:
        reason = f"concat('time is in the future (got ', {ts}, ')')"
        raw.reject(source, "events", f"{ts} > {text((now + SKEW).isoformat())}::TIMESTAMPTZ", reason)
    low, high = table.rating_scale
    stars = f"1 + 4 * ({rating} - {low}) / {high - low}"
    bench.run(
        f"INSERT INTO events SELECT {number}, {user}, {place}, {ts}, "
        f"{ts} AT TIME ZONE {text(source.timezone)}, {ours}, {others[0]}, {stars}, {category}, "
        f"{others[1]}, {others[2]} FROM raw WHERE {ours} != 'ignore'"
    )


def _places(bench: Workbench, mapping: Mapping, number: int, source: Source, table: Places) -> None:
    raw = _Section(bench, mapping, source, "places", table)
    place = raw.identifier("id")
    raw.must_have(source, "places", "id", place)
    _distinct(raw, source, "places", place)
    words = ", ".join((raw.words("name"), raw.categories(), raw.words("group")))
    price = f"least(greatest(round({raw.number('price')}), 0), 4)::INTEGER"
    bench.run(
        f"INSERT INTO places SELECT {number}, {place}, {words}, {price}, {raw.words('neighborhood')}, "
        f"{raw.number('latitude')}, {raw.number('longitude')} FROM raw"
    )


def _users(bench: Workbench, mapping: Mapping, number: int, source: Source, table: Users) -> None:
    raw = _Section(bench, mapping, source, "users", table)
    user = raw.identifier("id")
    raw.must_have(source, "users", "id", user)
    _distinct(raw, source, "users", user)
    bench.run(f"INSERT INTO users SELECT {number}, {user}, {raw.words('name')} FROM raw")


def _friendships(bench: Workbench, mapping: Mapping, number: int, source: Source, table: Friendships) -> None:
    raw = _Section(bench, mapping, source, "friendships", table)
    a, b = raw.identifier("a"), raw.identifier("b")
    for key, value in (("a", a), ("b", b)):
        raw.must_have(source, "friendships", key, value)
    raw.reject(source, "friendships", f"{a} = {b}", f"concat('nobody is their own friend (got ', {a}, ')')")
    since = "NULL::TIMESTAMPTZ"
    if table.since:
        since = raw.moment("since", source.timezone)
        raw.must_have(source, "friendships", "since", since)
    bench.run(f"INSERT INTO friendships SELECT {number}, {a}, {b}, {text(table.known)}, {since} FROM raw")


def _distinct(raw: _Section, source: Source, section: str, value: str) -> None:
    raw.reject(
        source,
        section,
        f"_row NOT IN (SELECT min(_row) FROM raw GROUP BY {value})",
        f"concat('id appears twice (got ', {value}, ')')",
    )


def _named(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _plain(message: str) -> str:
    if "not utf-8 encoded" in message or "Invalid unicode" in message or "Invalid Input Error: Invalid" in message:
        return 'it is not UTF-8: say encoding = "latin-1"'
    return message.splitlines()[0]


def ingested(bench: Workbench) -> dict[str, Any]:
    """How many rows of each kind were read."""
    names = ("events", "places", "users", "friendships", "rejects")
    return {name: bench.one(f"SELECT count(*) FROM {name}") for name in names}
