"""Which engine runs the project's SQL: the lake itself (DuckDB), or Spark."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys.lake import Lake
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.spark import Spark


@contextmanager
def engine(settings: Settings, lake: Lake) -> Iterator["Lake | Spark"]:
    """What runs the project's SQL, by the settings; Feast's Spark store shares the session of ours.

    Raises:
        ConfigError: Spark is asked for, and pyspark or Java is missing.
    """
    if settings.engine == "duckdb":
        yield lake
        return
    from recsys.spark import Spark

    spark = Spark(
        lake.sources,
        master=settings.spark_master or f"local[{settings.threads}]",
        memory_limit_gb=settings.memory_limit_gb,
        scratch=settings.data_dir / ".spark",
    )
    try:
        yield spark
    finally:
        spark.close()
