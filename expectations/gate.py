"""The gate's verdict on a batch: every table judged, compared with last time, and whether the batch is refused."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from expectations import drift
from expectations.rules import Bounds
from expectations.suites import SUITES
from recsys.errors import DataError
from recsys.lake import Lake
from recsys.quality import check, conform
from recsys.schemas import TABLES

NEEDED: Final = ("users", "places", "interactions")  # a world can be without ties and labels, not without these
# What may differ between two batches of one source; where anything else does, they are not compared.
_MOVES_ON: Final = ("start", "end", "cities", "neighborhoods")


def batch_name(files: Mapping[str, Path], *more: Path) -> str:
    """What a batch is called: a digest of the landed bytes and of the rules that judge them.

    Args:
        files: table → file.
        more: files that belong to the batch, where they exist.
    """
    digest = hashlib.sha256(repr([SUITES[name](Bounds()) for name in files]).encode())
    for path in (*files.values(), *more):
        if path.exists():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def same_source(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `source.json` speak of batches that should look alike."""
    return all(one.get(key) == other.get(key) for key in {*one, *other} - {*_MOVES_ON})


def compare(lake: Lake, name: str, path: Path, before: Path, *, same_taxonomy: bool) -> dict[str, Any] | None:
    """How a landed table moved against an accepted one: `Verdict.figures()` and `measures`, one of each column.

    Returns:
        None where the accepted file has another contract.
    """
    try:
        conform(before, TABLES[name])
    except DataError:
        return None
    sql = drift.measures_sql(TABLES[name], same_taxonomy=same_taxonomy)
    frames = list(lake.derive(sql, {"landing": path, "before": before}))
    moved = check(frames, drift.suite(TABLES[name]))
    return {**moved.figures(), "measures": [row for frame in frames for row in frame.to_pylist()]}


def refusal(suites: Mapping[str, Any], *, accept_drift: bool) -> str | None:
    """Why a batch must not be accepted; None: it may.

    Args:
        suites: table → `Verdict.figures()` with `drift`.
        accept_drift: being other than the last batch is no reason.
    """
    reasons = []
    for name, suite in suites.items():
        most = next((f"most often: {rule}, {n:,} times" for rule, n in rejections(suite).items()), "the file is empty")
        if not suite["accepted"] and (suite["rows"] or name in NEEDED):
            reasons.append(f"{name}: no row was accepted (got {suite['rows']} rows; {most})")
        elif suite["severity"] == "critical":
            share = suite["rejected"] / suite["rows"]
            reasons.append(f"{name}: {share:.1%} of its rows were rejected, above {suite['stop_above']:.0%} ({most})")
        moved = suite["drift"] if suite["drift"] and not accept_drift else {"rules": []}
        for rule in moved["rules"]:
            if rule["broken"] and rule["severity"] == "critical":
                got = ", ".join(f"{moved['measures'][row]['column']} {found}" for row, found in rule["examples"])
                said = f"{name} differ from the batch before: {rule['name']} does not hold (got {got})"
                reasons.append(f"{said}; if that is right: `recsys validate --accept-drift`")
    return "; ".join(reasons) or None


def rejections(suite: Mapping[str, Any]) -> dict[str, int]:
    """The broken rules that rejected rows, most frequent first."""
    broken = [(r["name"], r["broken"]) for r in suite["rules"] if r["broken"] and r["severity"] == "critical"]
    return dict(sorted(broken, key=lambda item: -item[1]))
