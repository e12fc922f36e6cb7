"""How good the data are: what the gate and the feature views' judges last found, for a person and for a scheduler."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from expectations.page import render, state
from jobs.report import Report
from recsys.atomic import replacing, write_json
from recsys.errors import NotReady
from recsys.quality import worst
from recsys.settings import Settings

_COLORS: Final = {"ok": "green", "warning": "yellow", "critical": "red"}


def run(settings: Settings, report: Report) -> None:
    """Show the last verdicts; the command's exit code is that of the gravest.

    Args:
        settings: where things are.
        report: severity over all, and by table and feature view: severity, rows and broken rules.

    Raises:
        NotReady: nothing has been judged yet.
    """
    tables, views = judged(settings, "tables"), judged(settings, "views")
    if tables is None:
        raise NotReady("nothing has been judged yet: run `recsys validate`")
    parts = [part for part in (tables, views) if part]
    report["severity"] = worst(part["severity"] for part in parts)
    report.update(batch=tables["batch"], compared_with=tables["compared_with"])
    report["refused"] = "; ".join(part["refused"] for part in parts if part["refused"]) or None
    report["suites"] = {name: _brief(suite) for part in parts for name, suite in part["suites"].items()}
    report["page"] = str(settings.reports / "quality" / "index.html")
    shown = Table("table", "state", "rows", "rejected", "broken rules", title="recsys quality", title_justify="left")
    for name, one in report.figures["suites"].items():
        broken = ", ".join(f"{rule} ({n:,})" for rule, n in one["broken"].items())
        color = _COLORS[one["severity"]]
        shown.add_row(
            name, f"[{color}]{one['severity']}[/]", f"{one['rows']:,}", f"{one['rejected']:,}", escape(broken)
        )
    report.console.print(shown)
    if report.figures["refused"]:
        report.console.print(f"[red]refused:[/] {escape(report.figures['refused'])}")
    report.console.print(report.figures["page"])


def judged(settings: Settings, part: str) -> dict[str, Any] | None:
    """What was last found of "tables" or "views"; None: nothing yet."""
    path = settings.reports / "quality" / f"{part}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_pages(
    folder: Path, docs: Mapping[str, str], *, tables: Mapping[str, Any], views: Mapping[str, Any] | None
) -> None:
    """Write the verdicts, Great Expectations' Data Docs (by name of the table) and the page in front of them."""
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    for name, html in docs.items():
        with replacing(folder / "docs" / f"{name}.html") as aside:
            aside.write_text(html, encoding="utf-8")
    for part, found in (("tables", tables), ("views", views)):
        if found:
            write_json(folder / f"{part}.json", found)
    with replacing(folder / "index.html") as aside:
        aside.write_text(render(tables, views), encoding="utf-8")


def _brief(suite: Mapping[str, Any]) -> dict[str, Any]:
    rules = suite["rules"] + ((suite.get("drift") or {}).get("rules") or [])
    return {
        "severity": state(suite),
        **{key: suite[key] for key in ("rows", "accepted", "rejected")},
        "broken": {rule["name"]: rule["broken"] for rule in rules if rule["broken"]},
    }
