"""DuckDB without the lake's fence, for what a team hands us: files and queries in whatever shape they come.

Nothing here may be reached by a stranger's SQL: the statements are ours or the mapping's, which its owner runs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import pyarrow as pa

from recsys.atomic import replacing
from recsys.errors import DataError

Params = Sequence[Any] | Mapping[str, Any] | None

# Text stays text: a guess at types would take moments without a zone for UTC as soon as one row has one.
_CSV: Final = "read_csv([{files}], union_by_name = true, header = true, all_varchar = true, encoding = {encoding}%s)"
_JSON: Final = "read_json([{files}], union_by_name = true, format = 'newline_delimited')"
_READERS: Final = {
    ".parquet": "read_parquet([{files}], union_by_name = true)",
    ".csv": _CSV % "",
    ".tsv": _CSV % ", delim = '\t'",
    ".jsonl": _JSON,
    ".ndjson": _JSON,
}
_ENDINGS: Final = re.compile(r"\.gz$|\.zst$")


class Workbench:
    """One connection with tables of its own; large ones spill to disk.

    Args:
        spill: folder for what does not fit into memory.
        threads: DuckDB threads.
        memory_limit_gb: DuckDB's memory limit, GB.
    """

    def __init__(self, spill: Path, *, threads: int = 2, memory_limit_gb: float = 3.0) -> None:
        self._connection = duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": f"{memory_limit_gb * 1000:.0f}MB",
                "temp_directory": str(spill),
                "python_enable_replacements": False,
                "preserve_insertion_order": True,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET enable_progress_bar = false")  # it goes to standard output, as a report does

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def run(self, sql: str, params: Params = None) -> None:
        """Run one statement.

        Raises:
            DataError: DuckDB's own first lines.
        """
        with _explained():
            self._connection.execute(sql, params)

    def rows(self, sql: str, params: Params = None) -> list[dict[str, Any]]:
        """The answer to a query, row by row."""
        with _explained():
            found = self._connection.execute(sql, params)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def one(self, sql: str, params: Params = None) -> Any:
        """The first value of a query's first row."""
        return next(iter(self.rows(sql, params)[0].values()))

    def take(self, name: str, table: pa.Table) -> None:
        """Make a table of Arrow data."""
        with _explained():
            self._connection.register("arrow_source", table)
            self._connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS SELECT * FROM arrow_source")
            self._connection.unregister("arrow_source")

    def write(self, sql: str, path: Path, params: Params = None) -> int:
        """Stream a query into a parquet file, atomically; return the rows written."""
        with _explained(), replacing(path) as aside:
            done = self._connection.execute(
                f"COPY ({sql}\n) TO {text(str(aside))} (FORMAT parquet, COMPRESSION zstd)", params
            ).fetchone()
            return int(done[0]) if done else 0

    def columns(self, relation: str) -> dict[str, str]:
        """Column → DuckDB type of what a FROM clause would read."""
        found = self.rows(f"DESCRIBE SELECT * FROM {relation}")
        return {row["column_name"]: row["column_type"] for row in found}


def reading(files: Sequence[Path], encoding: str = "utf-8") -> str:
    """The FROM clause that reads files of one kind, by the ending of the first.

    Raises:
        DataError: an ending that is not known.
    """
    ending = Path(_ENDINGS.sub("", files[0].name)).suffix.lower()
    if ending not in _READERS:
        raise DataError(f"{files[0].name}: files must end in {', '.join(_READERS)} (got {ending or 'no ending'!r})")
    return _READERS[ending].format(files=", ".join(text(str(f)) for f in files), encoding=text(encoding))


def text(value: str) -> str:
    """A value as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DataError("\n".join(lines[:4])) from error
