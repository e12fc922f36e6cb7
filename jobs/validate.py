"""Landed tables → Great Expectations → the lake, the quarantine with reasons, and the quality page."""

import shutil
from typing import Any

from expectations import SIZES_SQL, SUITES, Bounds
from expectations.page import render
from jobs.report import Report
from recsys.atomic import replacing, write_json
from recsys.errors import GateFailed
from recsys.lake import Lake, read_source, staging
from recsys.quality import Verdict, check, conform, split
from recsys.schemas import TABLES
from recsys.settings import Settings
from recsys.taxonomy import FILE, read_taxonomy

_NEEDED = ("users", "places", "interactions")  # a world can be without ties and labels, not without these


def run(settings: Settings, report: Report) -> None:
    """Judge every landed row; accept all tables in one step, or none.

    Args:
        settings: where things are.
        report: rows in, accepted and rejected by table, and why.

    Raises:
        NotReady: a table has not landed.
        DataError: a file does not have the columns or types of its table.
        GateFailed: no row of a table was accepted; the lake stays as it was, the page says why.
    """
    files = {name: settings.landing / f"{name}.parquet" for name in SUITES}
    for name, path in files.items():
        conform(path, TABLES[name])
    source = read_source(settings.landing)
    found: dict[str, tuple[Verdict, list[dict[str, Any]]]] = {}
    try:
        with staging(settings.data_dir) as stage:
            lake = Lake(stage, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb)
            sizes = next(lake.derive(SIZES_SQL, {name: files[name] for name in ("users", "places")})).to_pylist()[0]
            bounds = Bounds.of(source, sizes, read_taxonomy(settings.landing).widths)
            for name, path in files.items():
                with report.stage(name):
                    suite = SUITES[name](bounds)
                    verdict = check(lake.derive(suite.sql, {"landing": path}), suite)
                    accepted, rejected = (stage / part / f"{name}.parquet" for part in ("lake", "quarantine"))
                    found[name] = verdict, split(path, suite.table, verdict.rejected, accepted, rejected)
                if not verdict.accepted and (verdict.rows or name in _NEEDED):
                    raise GateFailed(f"{name}: no row was accepted (got {verdict.rows} rows; {_most(verdict)})")
            if (settings.landing / FILE).exists():
                shutil.copyfile(settings.landing / FILE, stage / "lake" / FILE)
            if source:
                write_json(stage / "lake" / "source.json", source)
            (stage / "reports").mkdir()
            (stage / "reports" / "quality.html").write_text(render(found, source), encoding="utf-8")
    except GateFailed as refusal:
        with replacing(settings.reports / "quality.html") as aside:
            aside.write_text(render(found, source, refused=str(refusal)), encoding="utf-8")
        raise
    for name, (verdict, _) in found.items():
        rows = {"rows": verdict.rows, "accepted": verdict.accepted, "rejected": verdict.rows - verdict.accepted}
        report[name] = rows | {"reasons": verdict.reasons}
    report["page"] = str(settings.reports / "quality.html")


def _most(verdict: Verdict) -> str:
    return next((f"most often: {rule}, {count} times" for rule, count in verdict.reasons.items()), "the file is empty")
