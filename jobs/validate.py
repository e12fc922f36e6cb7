"""Landed tables → Great Expectations → the lake, the quarantine with reasons, and the quality pages."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expectations import SIZES_SQL, SUITES, Bounds
from expectations.gate import batch_name, compare, refusal, rejections, same_source
from expectations.page import shown
from jobs.engine import engine
from jobs.quality import judged, write_pages
from jobs.report import Report
from recsys.atomic import restored, staging, write_json
from recsys.dataset import read_source
from recsys.errors import GateFailed
from recsys.lake import Lake
from recsys.quality import check, conform, data_docs, split, worst
from recsys.schemas import TABLES
from recsys.settings import Settings
from recsys.taxonomy import FILE, read_taxonomy

_REPLACES = (
    *(f"quarantine/{name}.parquet" for name in TABLES), "lake/source.json", f"lake/{FILE}", "reports/quality/**/*",
)  # fmt: skip


def run(settings: Settings, report: Report, *, accept_drift: bool = False) -> None:
    """Judge every landed row; accept all tables in one step, or none. A batch that was accepted is not judged again.

    Args:
        settings: where things are.
        report: rows in, accepted and rejected by table, and why.
        accept_drift: accept a batch although it differs much from the one before.

    Raises:
        ConfigError: Spark is asked for and cannot run.
        NotReady: a table has not landed.
        DataError: a file does not have the columns or types of its table.
        GateFailed: a table has too few good rows, or the batch differs too much from the last one; the lake stays as
            it was, the page says why.
    """
    restored(settings.landing)
    Lake(settings.data_dir).close()  # a run that was killed as it accepted: first to its end, then compare with that
    files = {name: settings.landing / f"{name}.parquet" for name in SUITES}
    for name, path in files.items():
        conform(path, TABLES[name])
    batch = batch_name(files, settings.landing / "source.json", settings.landing / FILE)
    last = _accepted(settings.lake)
    known = judged(settings, "tables") or {}
    if last.get("batch") == known.get("batch") == batch and not known["refused"]:
        report.console.print("these tables were accepted already: nothing to do")
        report.update(**last["tables"], batch=batch, unchanged=True, severity=known["severity"])
        return
    source = read_source(settings.landing)
    comparable = bool(last) and same_source(source, read_source(settings.lake))
    before = last["tables"] if comparable else {}
    found: dict[str, Any] = {"batch": batch, "compared_with": last["batch"] if comparable else None, "source": source}
    docs: dict[str, str] = {}
    # live events were about the data that were accepted before
    replaces = _REPLACES if comparable else (*_REPLACES, "lake/events.*")
    try:
        with staging(settings.data_dir, replaces=replaces) as stage:
            suites = _judge(settings, report, stage, files, source, before, docs)
            refused = refusal(suites, accept_drift=accept_drift)
            severity = worst(part["severity"] for suite in suites.values() for part in (suite, suite["drift"]) if part)
            if not refused and severity == "critical":
                severity = "warning"  # drift that somebody looked at
            found |= {"refused": refused, "severity": "critical" if refused else severity, "suites": suites}
            if refused:
                raise GateFailed(refused)
            tables = {name: _figures(suite) for name, suite in suites.items()}
            if (settings.landing / FILE).exists():
                shutil.copyfile(settings.landing / FILE, stage / "lake" / FILE)
            if source:
                write_json(stage / "lake" / "source.json", source)
            write_json(stage / "lake" / "batch.json", {"batch": batch, "tables": tables})
            write_pages(stage / "reports" / "quality", docs, tables=found, views=None)
    except GateFailed:
        write_pages(settings.reports / "quality", docs, tables=found, views=judged(settings, "views"))
        raise
    report.update(
        **tables,
        batch=batch,
        engine=settings.engine,
        severity=severity,
        page=str(settings.reports / "quality" / "index.html"),
    )


def _judge(
    settings: Settings, report: Report, stage: Path, files: Mapping[str, Path], source: Mapping[str, Any],
    before: Mapping[str, Any], docs: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Part every table into the stage's lake and quarantine; what was found, by table, and its Data Docs."""
    lake = Lake(stage, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb)
    sizes = next(lake.derive(SIZES_SQL, {name: files[name] for name in ("users", "places")})).to_pylist()[0]
    taxonomy, now = read_taxonomy(settings.landing), settings.now or datetime.now(UTC)
    same_taxonomy = taxonomy == read_taxonomy(settings.lake)
    bounds = replace(Bounds.of(source, sizes, taxonomy.widths), now=now)
    suites: dict[str, Any] = {}
    with engine(settings, lake) as runs:
        for name, path in files.items():
            with report.stage(name):
                suite = SUITES[name](bounds)
                verdict = check(runs.derive(suite.sql, {"landing": path}), suite)
                accepted, rejected = (stage / part / f"{name}.parquet" for part in ("lake", "quarantine"))
                samples = split(path, suite.table, verdict.rejected, accepted, rejected)
                docs[name] = data_docs(verdict, name, now, "../index.html")
                suites[name] = {
                    **verdict.figures(),
                    "samples": [{"reason": row.pop("reason"), "row": shown(row)} for row in samples],
                    "before": before.get(name),
                    "drift": None,
                }
                if name in before:
                    old = settings.lake / path.name
                    suites[name]["drift"] = compare(lake, name, path, old, same_taxonomy=same_taxonomy)
    return suites


def _figures(suite: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: suite[key] for key in ("rows", "accepted", "rejected", "severity")}
    return {**counts, "reasons": rejections(suite)}


def _accepted(lake: Path) -> dict[str, Any]:
    path = lake / "batch.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
