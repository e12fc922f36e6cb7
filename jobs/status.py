"""What exists, how old it is, and which version serves. Nothing is missing here: it is "not yet", with the command."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape
from rich.table import Table

from jobs.report import Report
from recsys.aggregates import VIEWS
from recsys.artifacts import versions
from recsys.errors import RecsysError
from recsys.index import open_index
from recsys.schemas import TABLES
from recsys.services import figures
from recsys.settings import Settings

JOBS = ("generate", "ingest", "validate", "materialize", "train", "evaluate", "publish")


def run(settings: Settings, report: Report) -> None:
    """Collect and show; a part that is missing, damaged or away is a line of the table, never an error."""
    now = datetime.now(UTC)
    report["landing"] = {name: _parquet(settings.landing / f"{name}.parquet", now) for name in TABLES}
    report["lake"] = {name: _parquet(settings.lake / f"{name}.parquet", now) for name in TABLES}
    report["quarantine"] = {  # the gate writes no file for a table of which it rejected nothing
        name: _parquet(settings.quarantine / f"{name}.parquet", now) or (accepted and accepted | {"rows": 0})
        for name, accepted in report.figures["lake"].items()
    }
    report["features"] = {name: _parquet(settings.features / f"{name}.parquet", now) for name in VIEWS}
    report["online_store"] = figures(settings.redis_url)
    report["artifacts"] = _or_error(lambda: versions(settings.artifacts))
    report["index"] = _or_error(lambda: asyncio.run(_index(settings)))
    report["jobs"] = {name: _last(settings.reports / f"{name}.json", now) for name in JOBS}
    report.console.print(_table(report.figures))


async def _index(settings: Settings) -> dict[str, Any]:
    index = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
    try:
        return {"live": await index.refresh(), "versions": await index.versions()}
    finally:
        await index.close()


def _or_error(ask: Any) -> Any:
    try:
        return ask()
    except (RecsysError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of another shape
        return {"error": str(error) or repr(error)}


def _parquet(path: Path, now: datetime) -> dict[str, Any] | None:
    try:  # the footers alone: no row is read
        parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        written = datetime.fromtimestamp(max(part.stat().st_mtime for part in parts), UTC)
        return {"rows": sum(pq.read_metadata(part).num_rows for part in parts), **_when("written_at", written, now)}
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        return {"error": str(error)}


def _last(path: Path, now: datetime) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        started = datetime.fromisoformat(content["started_at"])
        return {"seconds": float(content["seconds"]), **_when("started_at", started, now)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"error": f"{path} is damaged (got {error!r})"}


def _when(name: str, moment: datetime, now: datetime) -> dict[str, Any]:
    return {name: moment.isoformat(), "age_s": max(0, round((now - moment).total_seconds()))}


def _table(found: dict[str, Any]) -> Table:
    table = Table("part", "what", "state", title="recsys status", title_justify="left")
    makers = {"landing": "generate", "lake": "validate", "quarantine": "validate", "features": "materialize"}
    for part, job in makers.items():
        for name, one in found[part].items():
            table.add_row(part, name, _say(one, job, lambda f: f"{f['rows']:,} rows, {_ago(f['age_s'])}"))
    state = _say(found["online_store"], "up", lambda f: f"{f['keys']:,} keys, {f['memory_mb']:,} MB")
    table.add_row("online store", "", state)
    table.add_row("artifacts", "", _say(found["artifacts"], "train", lambda names: ", ".join(names)))
    index = found["index"] if found["index"].get("live") or "error" in found["index"] else None
    state = _say(index, "publish", lambda f: f"{f['live']} live; there are {', '.join(f['versions'])}")
    table.add_row("index", "", state)
    for name, one in found["jobs"].items():
        table.add_row("job", name, _say(one, name, lambda f: f"{f['seconds']:,.1f} s, {_ago(f['age_s'])}"))
    return table


def _say(one: Any, job: str, words: Any) -> str:
    if not one:
        return f"[yellow]not yet: run `recsys {job}`[/]"
    if isinstance(one, dict) and "error" in one:
        return f"[red]{escape(str(one['error']))}[/]"
    return escape(str(words(one)))


def _ago(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
