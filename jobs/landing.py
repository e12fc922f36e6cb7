"""Live events → the gate → the lake: what the API was told becomes part of `interactions`."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations import SIZES_SQL, SUITES, Bounds
from expectations.gate import rejections
from jobs.report import Report
from recsys.atomic import replacing, write_json
from recsys.dataset import world_of
from recsys.events import EventLog, landable
from recsys.lake import EVENTS, Lake
from recsys.quality import check
from recsys.schemas import TABLES
from recsys.settings import Settings

_KEY = TABLES["interactions"].key


def event_log(settings: Settings, lake: Lake) -> EventLog:
    """The log of events about the accepted data."""
    return EventLog(settings.events / world_of(lake.source()))


def land_events(settings: Settings, report: Report, lake: Lake) -> int:
    """Judge the events that were logged since the last time and append the good ones to the lake's.

    An event whose user, place and moment a table has already is that table's: it is not counted twice.

    Args:
        settings: where things are.
        report: how many came, and why some were rejected.
        lake: the accepted tables.

    Returns:
        The position in the log up to which everything is in the lake.
    """
    state_path, events = settings.lake / "events.json", settings.lake / EVENTS
    landed = json.loads(state_path.read_text(encoding="utf-8"))["landed"] if state_path.exists() else 0
    new = landable(event_log(settings, lake), landed)
    if not len(new):
        return landed
    with report.stage("land live events"):
        aside = settings.landing / "events.parquet"
        with replacing(aside) as path:
            pq.write_table(new, path)
        sizes, source = lake.query(SIZES_SQL).to_pylist()[0], lake.source()
        suite = SUITES["interactions"](
            Bounds.of({k: v for k, v in source.items() if k != "end"}, sizes, lake.taxonomy().widths)
        )
        verdict = check(lake.derive(suite.sql, {"landing": aside}), suite)
        bad = set(verdict.rejected["row"].to_pylist())
        reasons = dict(zip(verdict.rejected["row"].to_pylist(), verdict.rejected["reason"].to_pylist(), strict=True))
        good = new.filter(pa.array([i not in bad for i in range(len(new))]))
        if bad:
            _quarantine(
                settings, new.filter(pa.array([i in bad for i in range(len(new))])), [reasons[i] for i in sorted(bad)]
            )
        with replacing(aside) as path:
            pq.write_table(good, path)
        key, order = ", ".join(f'"{name}"' for name in _KEY), "seq"
        base = f"SELECT {key} FROM base"
        files = {"fresh": aside, "base": settings.lake / "interactions.parquet"}
        there = ""
        if events.exists():
            files["kept"] = events
            there = f"SELECT * FROM kept ANTI JOIN ({base}) USING ({key}) UNION ALL BY NAME "
        fresh = f"SELECT * FROM fresh ANTI JOIN ({base}) USING ({key}) WHERE seq > {landed}"
        # two events of one pair at one moment are one row of the table: the first
        once = f"SELECT * FROM ({there}{fresh}) QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY seq) = 1"
        rows = lake.write(f"{once} ORDER BY {order}", events, files=files)
    last = int(new["seq"][-1].as_py())
    write_json(state_path, {"landed": last, "rows": rows, "at": datetime.now(UTC).isoformat()})
    report["events"] = {
        "logged": len(new),
        "accepted": len(good),
        "rejected": len(bad),
        "reasons": rejections(verdict.figures()),
    }
    return last


def _quarantine(settings: Settings, rows: pa.Table, reasons: list[Any]) -> None:
    path = settings.quarantine / "events.parquet"
    rows = rows.append_column("reason", pa.array(reasons, pa.string()))
    if path.exists():
        rows = pa.concat_tables([pq.read_table(path), rows])
    with replacing(path) as aside:
        pq.write_table(rows, aside)
