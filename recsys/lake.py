"""Validated parquet, queried in place with DuckDB; what the gate accepts arrives here in one step.

Every query runs on a connection that can read the lake's files and nothing else: DuckDB's external access is off
but for those folders, its configuration is locked, and only statements that read are run. What the project itself
derives and writes (`derive`, `write`) runs on connections without that fence: never pass a stranger's SQL there.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import pyarrow as pa

from recsys.atomic import finish_staging, replacing
from recsys.dataset import read_source, world_of
from recsys.errors import DataError, NotReady
from recsys.schemas import TABLES
from recsys.taxonomy import CITY, Taxonomy, read_taxonomy

Params = Sequence[Any] | Mapping[str, Any] | None

# Feature views that a later stage writes: a query that names one before it exists is told which command makes it.
FEATURE_VIEWS: Final = (
    "user_profile", "user_activity", "user_recent", "place_profile", "place_activity", "user_place", "user_user",
)  # fmt: skip
EVENTS: Final = "events.parquet"  # in the lake: what the API was told, judged like every other interaction
_IDS: Final = ("users_ids", "places_ids", "cities_ids")  # our numbers and the sources' own ids
# small row groups are compressed side by side, and the lowest level loses no size on such data
_PARQUET: Final = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 30720"
_UNKNOWN_TABLE: Final = re.compile(r'Table with name "?(\w+)"? does not exist')
_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?(?=select|from|with|values|\()", re.IGNORECASE)
_DAY: Final = timedelta(days=1)


class Lake:
    """DuckDB views over every parquet file that exists: tables, feature views, `quarantine_<table>`, `<kind>_ids`.

    `interactions` are those of the accepted table and, after them, the live events that were accepted since;
    `impressions` are what was shown of this data set.
    Files that appear or go while the lake is open are noticed at the next query. Use it from one thread at a time.

    Args:
        data_dir: the data folder; it need not exist yet.
        threads: DuckDB threads.
        memory_limit_gb: DuckDB's memory limit, GB; what does not fit spills to `<data_dir>/.duckdb`.

    Raises:
        DataError: a file is not readable parquet.
    """

    def __init__(self, data_dir: Path, *, threads: int = 2, memory_limit_gb: float = 6.0) -> None:
        self._dir = data_dir.resolve()
        self._config: dict[str, Any] = {
            "threads": threads,
            "memory_limit": f"{memory_limit_gb * 1000:.0f}MB",
            "temp_directory": str(self._dir / ".duckdb"),
            # A name in a query is a view, never a Python variable or something to download.
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._views: dict[str, tuple[Path, int]] = {}
        self._fenced: duckdb.DuckDBPyConnection | None = None
        finish_staging(self._dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later query opens it again."""
        if self._fenced is not None:
            self._fenced.close()
        self._fenced = None

    def query(self, sql: str, params: Params = None) -> pa.Table:
        """Run one query that reads.

        Args:
            sql: one SELECT, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.
            params: values of `$1`, `$2`, … or of `$name`.

        Returns:
            The rows; timestamps are microseconds in UTC.

        Raises:
            NotReady: a view that a stage has yet to make; names the command.
            DataError: the SQL is wrong, writes, or reads what is not in the lake; DuckDB's own first lines.
        """
        connection = self._connection()
        with _explained(self._dir):
            if not _reads(sql):
                raise DataError(f"the lake is read-only: one query at a time (got {_short(sql)!r})")
            return _relation(connection, sql, params).to_arrow_table()

    def write(
        self, sql: str, path: Path, params: Params = None, *, files: Mapping[str, Path | Sequence[Path]] | None = None
    ) -> int:
        """Stream a query of ours into a parquet file, atomically: zstd, timestamps in microseconds.

        Args:
            sql: one query; give it an ORDER BY, or the file's bytes may differ from run to run.
            path: the file; its folder is made.
            params: as for `query`.
            files: views that the query reads from elsewhere than the lake; the rows of several files one after another.

        Returns:
            Number of rows written.

        Raises:
            NotReady, DataError: as for `query`.
        """
        with _explained(self._dir), self._open(sql, files) as connection, replacing(path) as aside:
            copied = connection.execute(
                f"COPY ({sql.strip().rstrip(';')}\n) TO {_text(aside)} ({_PARQUET})", params
            ).fetchone()
            return int(copied[0]) if copied else 0

    def derive(self, sql: str, files: Mapping[str, Path], *, rows: int = 500_000) -> Iterator[pa.Table]:
        """Query parquet files that are not in the lake yet, beside the lake's own views.

        Args:
            sql: one query of ours over `files` and the lake; `file_row_number` counts a file's rows from 0.
            files: view name → parquet file.
            rows: rows of one answer, so that memory does not grow with the file.

        Yields:
            Tables of at most `rows` rows.

        Raises:
            NotReady, DataError: as for `query`.
        """
        with _explained(self._dir), self._open(sql) as connection:
            for name, path in files.items():
                connection.execute(
                    f"CREATE VIEW {_name(name)} AS SELECT * FROM read_parquet({_text(path)}, file_row_number = true)"
                )
            # What runs in parallel arrives in pieces, some small
            pieces: list[pa.RecordBatch] = []
            for batch in _relation(connection, sql, None).to_arrow_reader(rows):
                if pieces and sum(piece.num_rows for piece in pieces) + batch.num_rows > rows:
                    yield pa.Table.from_batches(pieces)
                    pieces = []
                pieces.append(batch)
            if pieces:
                yield pa.Table.from_batches(pieces)

    def tables(self) -> list[str]:
        """Names of the views there are, in the order tables, features, quarantine, ids."""
        return list(self._files())

    def horizon(self) -> tuple[datetime, datetime]:
        """The half-open days that the interactions span.

        Returns:
            Midnight at or before the first event, midnight after the last one (UTC).

        Raises:
            NotReady: there are no interactions.
        """
        row = self.query(
            'SELECT epoch_us(min("timestamp")) AS low, epoch_us(max("timestamp")) AS high FROM interactions'
        ).to_pylist()[0]
        if row["low"] is None:
            raise NotReady("the lake holds no interaction: land some and run `recsys validate`")
        low, high = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row[k]) for k in ("low", "high"))
        return _midnight(low), _midnight(high) + _DAY

    def fingerprint(self) -> str:
        """The sha256 of the five tables' names and bytes, and of the taxonomy.

        Raises:
            NotReady: a table is missing.
        """
        digest = hashlib.sha256()
        for name in TABLES:
            path = self._dir / "lake" / f"{name}.parquet"
            if not path.exists():
                raise NotReady(f"{name} is not in the lake: run `recsys validate`")
            digest.update(name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        if (events := self._dir / "lake" / EVENTS).exists():
            digest.update(events.read_bytes())
        taxonomy = self.taxonomy()
        if taxonomy != CITY:
            digest.update(repr(taxonomy).encode())
        return digest.hexdigest()

    def source(self) -> dict[str, Any]:
        """Where the accepted data came from (`lake/source.json`); empty when nobody said."""
        return read_source(self._dir / "lake")

    def taxonomy(self) -> Taxonomy:
        """The names that the accepted vectors index by."""
        return read_taxonomy(self._dir / "lake")

    def _files(self) -> dict[str, Path]:
        found = {name: self._dir / "lake" / f"{name}.parquet" for name in TABLES}
        found |= {p.stem: p for p in sorted((self._dir / "features").glob("[!.]*.parquet"))}
        rejected = (*TABLES, "ingest", "events")
        found |= {f"quarantine_{name}": self._dir / "quarantine" / f"{name}.parquet" for name in rejected}
        found |= {name: self._dir / "ids" / f"{name.removesuffix('_ids')}.parquet" for name in _IDS}
        shown = self._dir / "impressions" / world_of(self.source())
        found = {name: path for name, path in found.items() if path.exists()}
        return found | ({"impressions": shown / "*.parquet"} if any(shown.glob("[!.]*.parquet")) else {})

    def sources(
        self, sql: str | None = None, files: Mapping[str, Path | Sequence[Path]] | None = None
    ) -> Iterator[tuple[str, list[str] | None, list[Path]]]:
        """What the names in a query stand for.

        Args:
            sql: only what it may name; default: everything.
            files: names that are not the lake's, and what they stand for.

        Yields:
            A name, its columns (None: all), and the parquet files whose rows it has, one after another.
        """
        for name, found in {**self._files(), **(files or {})}.items():
            if sql is not None and name.lower() not in sql.lower():
                continue
            paths = [found] if isinstance(found, Path) else list(found)
            if name == "interactions" and (events := paths[0].with_name(EVENTS)).exists():
                yield name, list(TABLES[name].columns), [*paths, events]
            else:
                yield name, None, paths

    def _open(
        self, sql: str | None = None, files: Mapping[str, Path | Sequence[Path]] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """A connection with the views that a query may name: each costs the reading of a footer."""
        connection = duckdb.connect(config=self._config)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it goes to standard output, as answers do
        for name, columns, paths in self.sources(sql, files):
            read = f"read_parquet([{', '.join(map(_text, paths))}])"
            try:
                connection.execute(
                    f"CREATE VIEW {_name(name)} AS SELECT {', '.join(map(_name, columns or [])) or '*'} FROM {read}"
                )
            except duckdb.Error as error:
                connection.close()
                raise DataError(f"{paths[0].name} cannot be read as parquet: {_first_lines(error)}") from error
        return connection

    def _connection(self) -> duckdb.DuckDBPyConnection:
        views = {name: (path, _changed(path)) for name, path in self._files().items()}
        if (events := self._dir / "lake" / EVENTS).exists():
            views["events"] = (events, events.stat().st_mtime_ns)
        if self._fenced is None or views != self._views:
            self.close()
            fenced = self._open()
            folders = ", ".join(
                _text(self._dir / folder) for folder in ("lake", "features", "quarantine", "ids", "impressions")
            )
            fenced.execute(f"SET allowed_directories = [{folders}]")
            fenced.execute("SET enable_external_access = false")
            fenced.execute("SET lock_configuration = true")
            self._fenced, self._views = fenced, views
        return self._fenced


def _changed(path: Path) -> int:
    """When a file, or what is in a folder, last changed."""
    return (path.parent if "*" in path.name else path).stat().st_mtime_ns


def _reads(sql: str) -> bool:
    """Whether this is one statement that reads. EXPLAIN ANALYZE runs what it explains, so what follows it must read."""
    while explain := _EXPLAIN.match(sql):
        sql = sql[explain.end() :]
    return [s.type for s in duckdb.extract_statements(sql)] == [duckdb.StatementType.SELECT]


def _relation(connection: duckdb.DuckDBPyConnection, sql: str, params: Params) -> duckdb.DuckDBPyRelation:
    # DuckDB refuses parameters that the query does not use, even an empty list of them
    return connection.sql(sql, params=params) if params else connection.sql(sql)


@contextmanager
def _explained(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        unknown = _UNKNOWN_TABLE.search(str(error))
        name = unknown[1].lower() if unknown else ""
        if name in TABLES:
            raise NotReady(f"{name} is not in the lake: run `recsys validate` (looked in {data_dir})") from error
        if name in FEATURE_VIEWS:
            raise NotReady(f"{name} is not there yet: run `recsys materialize` (looked in {data_dir})") from error
        if name == "impressions":
            raise NotReady(
                "nothing was shown yet, or it is not written: `recsys serve` does, every few seconds"
            ) from error
        if name == "quarantine_ingest" or name in _IDS:
            raise NotReady(
                f"{name} is not there: `recsys ingest` makes it, where there is something to put in"
            ) from error
        if name.removeprefix("quarantine_") in TABLES:
            raise NotReady(f"{name} is not there: the last `recsys validate` rejected no row") from error
        raise DataError(_first_lines(error)) from error


def _first_lines(error: Exception, lines: int = 5) -> str:
    return "\n".join([line for line in str(error).splitlines() if line.strip()][:lines])


def _short(sql: str) -> str:
    return sql if len(sql) <= 80 else f"{sql[:77]}..."


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
