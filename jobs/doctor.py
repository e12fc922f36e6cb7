"""What is wrong, and what to run. It changes nothing, needs nothing to be up, and ends whatever hangs."""

import json
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs import doctor_data as data
from jobs import doctor_serving as serving
from jobs import doctor_stores as stores
from recsys import health
from recsys.health import Check, Finding
from recsys.settings import ROOT, Settings

_COLORS: Final = {"ok": "green", "warning": "yellow", "error": "red", "not applicable": "dim"}
_OF_SETTINGS: Final = {
    "settings": serving.settings_agree,
    "engine": data.engine,
    "landing": data.landing,
    "quality": data.quality,
    "features": data.features,
    "registry": stores.registry,
    "online store": stores.online_store,
    "online features": stores.online_features,
    "event log": stores.event_log,
    "safety list": data.safety,
    "versions": serving.versions,
    "index": serving.index,
}


def run(settings: Settings, console: Console, *, as_json: bool = False) -> int:
    """Look at everything and show it.

    Args:
        settings: where things are.
        console: where to; standard output.
        as_json: `{checks: [{name, state, found, run}], errors, warnings}` instead of a table.

    Returns:
        The exit code: 1 where a check found an error, else 0.
    """
    with Console(stderr=True).status("recsys doctor"):
        found = health.examine(checks(settings))
    counts = Counter(finding.state for finding in found)
    if as_json:
        said: dict[str, Any] = {"checks": [asdict(f) for f in found]}
        console.print_json(json.dumps(said | {"errors": counts["error"], "warnings": counts["warning"]}))
    else:
        console.print(_table(found))
        console.print(f"{counts['error']} errors, {counts['warning']} warnings", highlight=False)
    return int(counts["error"] > 0)


def checks(settings: Settings) -> dict[str, Check]:
    """Every check by name, in the order of the table."""
    return {
        "python": partial(health.python, "recsys", ROOT / "constraints.txt"),
        "disk": partial(health.disk, settings.data_dir),
        "memory": partial(health.memory, settings.memory_limit_gb),
        "port": partial(health.api, settings.host, settings.port),
        **{name: partial(check, settings) for name, check in _OF_SETTINGS.items()},
    }


def _table(found: list[Finding]) -> Table:
    table = Table("check", "state", "what was found, and what to run", title="recsys doctor", title_justify="left")
    for finding in found:
        color, said = _COLORS[finding.state], escape(finding.found)
        run = f"\n[cyan]→ {escape(finding.run)}[/]" if finding.run else ""
        table.add_row(finding.name, f"[{color}]{finding.state}[/]", f"{said}{run}")
    return table
