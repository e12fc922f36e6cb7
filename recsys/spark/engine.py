"""A Spark session, and queries of ours run on it."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing
from recsys.errors import ConfigError, DataError
from recsys.spark.dialect import to_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JAVA: Final = 17
_ROW_GROUP: Final = 30_720  # as the lake's files have it
_ROW_NUMBER: Final = "file_row_number"

Files = Mapping[str, Path | Sequence[Path]]


# What the names in a query stand for: name, columns (None: all), parquet files
Sources = Callable[[str, Files], Iterator[tuple[str, list[str] | None, list[Path]]]]


class Spark:
    """Runs the project's queries on Spark, as `recsys.lake.Lake` runs them on DuckDB.

    One session is for the whole process, also that which Feast's Spark store uses. Every path must be the same for
    driver and executors: on a cluster the data folder lies on a file system that all of them mount.

    Args:
        sources: the lake's.
        master: `local[N]`, or a cluster's address.
        memory_limit_gb: heap of a local session's JVM, GB.
        scratch: folder of a local session for what does not fit into memory.

    Raises:
        ConfigError: pyspark or Java is missing, or Java is too old.
    """

    def __init__(self, sources: Sources, *, master: str, memory_limit_gb: float, scratch: Path) -> None:
        self._sources = sources
        self._scratch = scratch
        self._spark = _session(master, memory_limit_gb, scratch)
        self._session = self._spark.newSession()  # Feast changes how the one it finds reads names

    def close(self) -> None:
        """End the session and its JVM's work."""
        self._spark.stop()

    def write(
        self, sql: str, path: Path, params: Mapping[str, Any] | None = None, *, files: Files | None = None
    ) -> int:
        """Write a query's rows into one parquet file, atomically and in the query's order: as `Lake.write` does.

        Executors write parts beside it, each a range of the order; this process puts them one after another.

        Args:
            sql: one query, with an ORDER BY.
            path: the file; its folder is made.
            params: values of `$name`.
            files: views that the query reads from elsewhere than the lake.

        Returns:
            Number of rows written.

        Raises:
            DataError: the query has no translation, or Spark refuses it; its own first line.
        """
        with (
            replacing(path) as aside,
            self._parts(sql, params, files or {}, path.parent / f".{path.name}.parts") as parts,
        ):
            with pq.ParquetWriter(aside, _schema(parts[0]), compression="zstd", compression_level=1) as out:
                for part in parts:
                    with pq.ParquetFile(part) as file:
                        for batch in file.iter_batches(_ROW_GROUP):
                            out.write_table(pa.Table.from_batches([batch]).cast(out.schema), _ROW_GROUP)
            return sum(pq.read_metadata(part).num_rows for part in parts)

    def derive(self, sql: str, files: Mapping[str, Path], *, rows: int = 500_000) -> Iterator[pa.Table]:
        """Query parquet files that are not in the lake yet, beside the lake's own views: as `Lake.derive` does.

        Args:
            sql: one query over `files` and the lake; `file_row_number` counts a file's rows from 0.
            files: view name → parquet file.
            rows: rows of one answer.

        Yields:
            Tables of at most `rows` rows.

        Raises:
            DataError: as for `write`.
        """
        with self._parts(sql, None, files, self._scratch / uuid4().hex, number=tuple(files)) as parts:
            for part in parts:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(rows):
                        yield pa.Table.from_batches([batch])

    @contextmanager
    def _parts(
        self, sql: str, params: Mapping[str, Any] | None, files: Files, folder: Path, number: Sequence[str] = ()
    ) -> Iterator[list[Path]]:
        """Run a query; its rows as parquet files, one after another, which go when the block ends."""
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with _explained():
                for name, columns, paths in self._sources(sql, files):
                    frame = self._session.read.parquet(*map(str, paths)).select(*columns or ["*"])
                    if name in number:
                        frame = frame.select("*", frame["_metadata.row_index"].alias(_ROW_NUMBER))
                    frame.createOrReplaceTempView(name)
                self._session.sql(to_spark(sql, params)).write.parquet(str(folder), compression="zstd")
            yield sorted(folder.glob("part-*.parquet"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _session(master: str, memory_limit_gb: float, scratch: Path) -> "SparkSession":
    require_spark()
    from pyspark.sql import SparkSession

    logging.getLogger("SQLQueryContextLogger").disabled = True  # it prints an error that is raised anyway, with stack
    conf = {
        "spark.app.name": "recsys",
        "spark.master": master,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        scratch.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # of the workers in which Feast writes
        conf |= {
            "spark.driver.memory": f"{memory_limit_gb * 1000:.0f}m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.maxResultSize": "0",
            "spark.local.dir": str(scratch),
            "spark.log.level": "ERROR",
            "spark.sql.shuffle.partitions": "8",
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            "spark.ui.enabled": "false",
        }
    return SparkSession.builder.config(map=conf).getOrCreate()


def require_spark() -> int:
    """Say in one sentence what pyspark says in a page.

    Returns:
        The version of Java that it would run on.

    Raises:
        ConfigError: pyspark or Java is missing, or Java is too old.
    """
    if find_spec("pyspark") is None:
        raise ConfigError("RECSYS_ENGINE is spark, and pyspark is not installed: pip install 'recsys[spark]'")
    wanted = f"RECSYS_ENGINE is spark, which needs Java {_JAVA} or newer (apt-get install default-jre-headless)"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(Path(home) / "bin" / "java" if home else "java")
    if java is None:
        raise ConfigError(f"{wanted}: there is none in {'JAVA_HOME' if home else 'PATH'}")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if found is None or int(found[1]) < _JAVA:
        said = done.stderr.strip().splitlines()
        raise ConfigError(f"{wanted} (got {said[0] if said else 'no answer'} of {java})")
    return int(found[1])


def _schema(part: Path) -> pa.Schema:
    """Columns as in a file of the lake: anything may be null, also in a list, and there is nothing of Spark in it."""
    return pa.schema([pa.field(f.name, _nullable(f.type)) for f in pq.read_schema(part)])


def _nullable(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", _nullable(kind.value_type))) if pa.types.is_list(kind) else kind


@contextmanager
def _explained() -> Iterator[None]:
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise DataError(f"Spark: {str(error).strip().splitlines()[0]}") from error
