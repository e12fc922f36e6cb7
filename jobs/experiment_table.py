"""What `recsys experiment` found, as a table."""

from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

_RATES: Final = ("click_through", "attend_rate")


def table(figures: Mapping[str, Any]) -> Table:
    """A row a version, and one of the difference."""
    out = Table("version", "users", "shown", "pending", *_RATES, title="recsys experiment", title_justify="left")
    for name, found in figures["versions"].items():
        counts = (f"{found[key]:,}" for key in ("users", "shown", "pending"))
        out.add_row(name, *counts, *(_say(found[rate], "") for rate in _RATES))
    if (gap := figures["difference"]) is not None:
        note = "" if gap["same_days"] else " (not at the same time)"
        out.add_row(f"{gap['version']} - {gap['minus']}{note}", "", "", "", *(_say(gap[rate], "+") for rate in _RATES))
    return out


def _say(found: Mapping[str, float] | None, sign: str) -> str:
    numbers = "{rate:.4f} ({low:.4f} to {high:.4f})".replace(":", f":{sign}")
    return "-" if found is None else numbers.format(**found)
