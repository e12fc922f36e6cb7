"""Dense numbers for the ids of sources, kept from run to run: what has a number keeps it, new ones are appended."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.workbench import Workbench

KINDS: Final = ("cities", "users", "places")
SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
    ]
)


def number(bench: Workbench, kind: str, wanted: str, folder: Path) -> int:
    """Make `<kind>_ids` (id, source, source_id) on the workbench and write it back.

    Args:
        bench: has what `wanted` reads.
        kind: one of KINDS; names the file.
        wanted: a query of distinct (source, source_id); new ones are numbered in its order.
        folder: where the numbers are kept.

    Returns:
        How many are new.
    """
    path = folder / f"{kind}.parquet"
    known = pq.read_table(path, schema=SCHEMA) if path.exists() else SCHEMA.empty_table()
    bench.take("known_ids", known)
    bench.run(
        f"CREATE OR REPLACE TABLE {kind}_ids AS "
        "SELECT id, source, source_id FROM known_ids UNION ALL "
        "SELECT (SELECT count(*) FROM known_ids) + row_number() OVER () - 1, source, source_id FROM "
        f"(SELECT w.* FROM ({wanted}) w ANTI JOIN known_ids USING (source, source_id) ORDER BY source, source_id)"
    )
    total = int(bench.one(f"SELECT count(*) FROM {kind}_ids"))
    if total > known.num_rows:
        bench.write(f"SELECT * FROM {kind}_ids ORDER BY id", path)
    return total - int(known.num_rows)


def read_ids(folder: Path, kind: str) -> pa.Table:
    """The numbers of a kind: id ascending, source, source_id; empty where nothing was ingested."""
    path = folder / f"{kind}.parquet"
    return pq.read_table(path, schema=SCHEMA) if path.exists() else SCHEMA.empty_table()
