"""A landed file against its contract: its columns and types, and its rows parted into accepted and rejected."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing
from recsys.errors import DataError, NotReady
from recsys.quality.suite import N_EXAMPLES
from recsys.schemas import Table

ROW_GROUP: Final = 131_072


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
