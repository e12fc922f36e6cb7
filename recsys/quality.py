"""Rows and a suite of expectations → accepted, rejected with reasons (the only Great Expectations import).

A suite is data (`expectations/`): each expectation says what Great Expectations shall check, on which columns, and why.
Checks on lists and maps run on scalars that the lake derives first. Great Expectations takes 5 s to import, so it is
imported when a check begins.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing
from recsys.errors import DataError, NotReady
from recsys.schemas import Table

ROW_GROUP: Final = 131_072
N_EXAMPLES: Final = 5


@dataclass(frozen=True)
class Expectation:
    """One rule of a table.

    Attributes:
        name: what holds, in words; a rejected row's reason begins with it. Unique within its suite.
        type: Great Expectations type, as `expect_column_values_to_be_between`; one that judges row by row.
        kwargs: its arguments.
        why: why the rule exists, for the reader of the report.
        columns: column of the checked frame → SQL over `landing` and the lake that makes it; all scalar.
        shows: the columns whose values tell what was found instead.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    why: str
    columns: Mapping[str, str]
    shows: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """Every rule of one table."""

    table: Table
    expectations: tuple[Expectation, ...]

    @property
    def sql(self) -> str:
        """The query that makes the frame to check: `row`, the row's number in its file, and the scalars."""
        columns = {name: sql for e in self.expectations for name, sql in e.columns.items()}
        scalars = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
        return f"SELECT file_row_number AS row, {scalars} FROM landing"


@dataclass(frozen=True)
class Verdict:
    """What a suite found.

    Attributes:
        suite: the rules.
        rows: rows judged.
        rejected: columns `row` (int64, ascending) and `reason` (string: every broken rule and what was found, "; ").
        failed: name of every expectation → rows that broke it.
        examples: name of a broken expectation → up to `N_EXAMPLES` of (row, what was found).
    """

    suite: Suite
    rows: int
    rejected: pa.Table
    failed: Mapping[str, int]
    examples: Mapping[str, list[tuple[int, str]]]

    @property
    def accepted(self) -> int:
        """Rows that broke no rule."""
        return self.rows - int(self.rejected.num_rows)

    @property
    def reasons(self) -> dict[str, int]:
        """The broken rules, most frequent first."""
        broken = [(name, count) for name, count in self.failed.items() if count]
        return dict(sorted(broken, key=lambda item: -item[1]))


def check(frames: Iterable[pa.Table], suite: Suite) -> Verdict:
    """Judge every row by every expectation.

    Args:
        frames: parts of one table of scalars as `Suite.sql` makes it; memory grows with the largest part only.
        suite: the rules.

    Returns:
        The verdict.

    Raises:
        DataError: an expectation could not be evaluated (a column is missing, values cannot be compared).
    """
    rows = 0
    failed = {e.name: 0 for e in suite.expectations}
    examples: dict[str, list[tuple[int, str]]] = {}
    rejected = [pa.table({"row": pa.array([], pa.int64()), "reason": pa.array([], pa.string())})]
    for frame in frames:
        numbers = frame["row"].to_numpy()
        rows += len(numbers)
        reasons = np.full(len(numbers), "", dtype=object)
        for expectation, broken in _broken(frame, suite):
            found = _found(frame, expectation, broken)
            failed[expectation.name] += len(broken)
            known = examples.setdefault(expectation.name, [])
            known += list(zip(numbers[broken].tolist(), found, strict=False))[: N_EXAMPLES - len(known)]
            texts = np.array([f"{expectation.name} (got {value})" for value in found], dtype=object)
            reasons[broken] = np.where(reasons[broken] == "", texts, reasons[broken] + "; " + texts)
        bad = np.flatnonzero(reasons != "")
        rejected.append(pa.table({"row": numbers[bad], "reason": pa.array(reasons[bad], pa.string())}))
    return Verdict(suite, rows, pa.concat_tables(rejected).sort_by("row"), failed, examples)


def conform(path: Path, table: Table) -> int:
    """Check that a landed file has the columns and types of its table; values are the gate's to judge.

    Args:
        path: parquet file; columns in any order, nulls allowed.
        table: the contract.

    Returns:
        Number of rows.

    Raises:
        NotReady: there is no such file.
        DataError: not parquet, or a column is missing, unknown or of another type; names file, column, expected, got.
    """
    if not path.exists():
        raise NotReady(f"{path.name} has not landed: run `recsys generate` (looked in {path.parent})")
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}") from error
    got = metadata.schema.to_arrow_schema()
    for field in table.arrow:
        if field.name not in got.names:
            raise DataError(f"{path.name}: column {field.name} is missing: expected {field.type} (got {got.names})")
        if got.field(field.name).type != field.type:
            raise DataError(f"{path.name}: column {field.name} must be {field.type} (got {got.field(field.name).type})")
    unknown = [name for name in got.names if name not in table.columns]
    if unknown:
        raise DataError(f"{path.name}: column {unknown[0]} is not in the contract of {table.name} (got {got.names})")
    return int(metadata.num_rows)


def split(path: Path, table: Table, rejected: pa.Table, accepted_to: Path, rejected_to: Path) -> list[dict[str, Any]]:
    """Part a landed file into accepted and rejected rows, both in the file's order, streaming.

    Args:
        path: the landed file, which conforms to `table`.
        table: the contract; the accepted file gets exactly its Arrow schema.
        rejected: columns `row` (int64, ascending, from 0) and `reason` (string).
        accepted_to: where accepted rows go.
        rejected_to: where rejected rows go, with their `reason`; not written when there are none.

    Returns:
        The first `N_EXAMPLES` rejected rows.
    """
    bad = rejected["row"].to_numpy()
    keep = np.ones(pq.read_metadata(path).num_rows, dtype=np.bool_)
    keep[bad] = False
    with replacing(accepted_to) as aside, pq.ParquetWriter(aside, table.arrow, compression="zstd") as out:
        for start, stop, part in _parts(path, table):
            out.write_table(part.filter(pa.array(keep[start:stop])).cast(table.arrow))
    if not len(bad):
        return []
    nullable = pa.schema([*(f.with_nullable(True) for f in table.arrow), pa.field("reason", pa.string())])
    samples: list[dict[str, Any]] = []
    with replacing(rejected_to) as aside, pq.ParquetWriter(aside, nullable, compression="zstd") as out:
        for start, stop, part in _parts(path, table):
            first, last = np.searchsorted(bad, (start, stop))
            reasons = rejected["reason"].slice(first, last - first)
            rows = part.filter(pa.array(~keep[start:stop])).append_column("reason", reasons).cast(nullable)
            out.write_table(rows)
            samples += rows.slice(0, N_EXAMPLES - len(samples)).to_pylist()
    return samples


def _parts(path: Path, table: Table) -> Iterator[tuple[int, int, pa.Table]]:
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROW_GROUP, columns=list(table.columns)):
            # the file may have its columns in another order
            yield start, start + batch.num_rows, pa.Table.from_batches([batch]).select(list(table.columns))
            start += batch.num_rows


def _broken(frame: pa.Table, suite: Suite) -> Iterator[tuple[Expectation, "np.ndarray[Any, Any]"]]:
    """Each broken expectation with the positions, ascending, of the rows that broke it."""
    with warnings.catch_warnings():
        # Great Expectations 1.24 imports two modules that Python 3.11 deprecates
        warnings.filterwarnings("ignore", r"module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        import great_expectations as gx
        import great_expectations.expectations as gxe
        from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("landing").add_dataframe_asset(suite.table.name)
    # an unnamed range as index: what is unexpected is then listed by position
    batch = asset.add_batch_definition_whole_dataframe("part").get_batch({"dataframe": frame.to_pandas()})
    rules = {e.name: e for e in suite.expectations}
    kinds = {e.type: getattr(gxe, "".join(word.capitalize() for word in e.type.split("_"))) for e in rules.values()}
    results = batch.validate(
        gx.ExpectationSuite(
            suite.table.name, expectations=[kinds[e.type](**e.kwargs, meta={"name": e.name}) for e in rules.values()]
        ),
        result_format={
            "result_format": "COMPLETE",
            "exclude_unexpected_values": True,
            "return_unexpected_index_query": False,
        },
    )
    for result in results.results:
        name = result.expectation_config.meta["name"]
        if result.success:
            continue
        if "unexpected_index_list" not in result.result:
            raise DataError(f"{suite.table.name}: {name!r} could not be checked (got {result.exception_info})")
        yield rules[name], np.sort(np.asarray(result.result["unexpected_index_list"], dtype=np.int64))


def _found(frame: pa.Table, expectation: Expectation, positions: "np.ndarray[Any, Any]") -> list[str]:
    rows = frame.select(list(expectation.shows)).take(positions)
    columns = [[_text(value) for value in column.to_pylist()] for column in rows.columns]
    return [", ".join(values) for values in zip(*columns, strict=True)]


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:77]}...")
    return str(value)
