"""The same SQL on Spark: the only package that knows pyspark and sqlglot.

What the project derives and writes by SQL is written once, in DuckDB's dialect (`recsys.lake`). `Spark` is another
engine for it: it translates a query, runs it over the same parquet files, and leaves the same file.
"""

from recsys.spark.dialect import to_spark
from recsys.spark.engine import Spark, require_spark

__all__ = ["Spark", "require_spark", "to_spark"]
