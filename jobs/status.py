"""What exists, how old it is, and which version serves. Nothing is missing here: it is "not yet", with the command."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from jobs.report import Report
from recsys.aggregates import VIEWS
from recsys.artifacts import versions
from recsys.errors import RecsysError
from recsys.index import open_index
from recsys.inventory import last_run, table_on_disk
from recsys.schemas import TABLES
from recsys.services import figures
from recsys.settings import Settings

JOBS = ("generate", "ingest", "validate", "materialize", "train", "evaluate", "publish")


def run(settings: Settings, report: Report) -> None:
    """Collect and show; a part that is missing, damaged or away is a line of the table, never an error."""
    now = datetime.now(UTC)
    report["landing"] = {name: table_on_disk(settings.landing / f"{name}.parquet", now) for name in TABLES}
    report["lake"] = {name: table_on_disk(settings.lake / f"{name}.parquet", now) for name in TABLES}
    report["quarantine"] = {  # the gate writes no file for a table of which it rejected nothing
        name: table_on_disk(settings.quarantine / f"{name}.parquet", now) or (accepted and accepted | {"rows": 0})
        for name, accepted in report.figures["lake"].items()
    }
    report["features"] = {name: table_on_disk(settings.features / f"{name}.parquet", now) for name in VIEWS}
    report["online_store"] = figures(settings.redis_url)
    report["artifacts"] = _or_error(lambda: versions(settings.artifacts))
    report["index"] = _or_error(lambda: asyncio.run(_index(settings)))
    report["jobs"] = {name: last_run(settings.reports / f"{name}.json", now) for name in JOBS}
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
