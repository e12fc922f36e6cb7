"""Behavioural features as of each day → parquet → Redis: as far back as anything changed, or all of it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations import SIZES_SQL, VIEW_SUITES, Bounds
from expectations.gate import rejections
from jobs.command import midnight
from jobs.engine import engine
from jobs.fill import bring_online
from jobs.landing import land_events
from jobs.quality import judged, write_pages
from jobs.report import Report
from jobs.services import ensure
from recsys.atomic import staging
from recsys.errors import ConfigError, GateFailed
from recsys.features import FeatureStore
from recsys.lake import EVENTS, Lake
from recsys.profiles import views
from recsys.quality import check, data_docs, warm_up, worst
from recsys.refresh import Engine, Made, compute, continues, remember, superseded, wanted
from recsys.settings import Settings


def run(
    settings: Settings, report: Report, *, until: datetime | None = None, full: bool = False, refill: bool = False
) -> None:
    """Land live events, bring every feature view up to date, register the definitions and fill the online store.

    Args:
        settings: where things are.
        report: what was made and why, rows by view, keys online, and where time went.
        until: features as of this midnight, UTC; default: the end of the data.
        full: make everything again, whatever changed.
        refill: write everything to the online store again, whatever it was filled from.

    Raises:
        ConfigError: `until` is not a midnight, or before the last live event; Spark is asked for and cannot run.
        GateFailed: a view broke a rule; nothing was changed.
        DataError: keys are missing online after all was written.
        FeatureStoreUnavailable: the online store went away; running it again completes it.
    """
    with (
        Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake,
        engine(settings, lake) as runs,
    ):
        landed = land_events(settings, report, lake)
        start, end = lake.horizon()
        if until is not None:
            end = midnight("--until", until, start, end)
            _keep_live(settings, end)
        report.update(until=end.isoformat(), engine=settings.engine)
        queries = views(lake.source())
        definitions = (settings.feature_repo / "definitions.py").read_text(encoding="utf-8")
        made = wanted(lake, queries, definitions, start, end, landed)
        there = Made.read(settings.features)
        if full or there is None or there.source != made.source:
            warm_up()
            continued, why = (None, "asked for") if full else continues(lake, settings.features, made)
            made = continued or made
            report["made"] = why if continued else f"all: {why}"
            _compute(settings, report, lake, runs, queries, made)
        else:
            made = there
        ensure(settings)
        store = FeatureStore(**settings.feast)
        try:
            with report.stage("feast apply"):
                report["registered"] = store.apply()
            bring_online(settings, report, lake, store, made, refill=full or refill)
        finally:
            store.close()
        report["rows"] = {view: lake.query(f"SELECT count(*) AS n FROM {view}")["n"][0].as_py() for view in queries}


def _keep_live(settings: Settings, end: datetime) -> None:
    """Refuse an end before live events: acknowledged, and landed, they would be online no more and folded no more."""
    path = settings.lake / EVENTS
    if not path.exists():
        return
    moments = pq.read_table(path, columns=["timestamp"])["timestamp"]
    late = moments.filter(pc.greater_equal(moments, pa.scalar(end, moments.type)))
    if len(late):
        raise ConfigError(
            f"--until {end:%Y-%m-%d} would take {len(late):,} live events from the online store, up to "
            f"{pc.max(late).as_py():%Y-%m-%d %H:%M} (UTC): leave it out, or choose a later day"
        )


def _compute(
    settings: Settings, report: Report, lake: Lake, runs: Engine, queries: Mapping[str, str], made: Made
) -> None:
    """Compute every view aside and judge its new rows; all take their places in one step, or none does."""
    taxonomy, sizes = lake.taxonomy(), lake.query(SIZES_SQL).to_pylist()[0]
    bounds = replace(Bounds.of(lake.source(), sizes, taxonomy.widths), end=made.end)  # live events go beyond the data's
    now = settings.now or datetime.now(UTC)
    tables, suites, docs = judged(settings, "tables"), {}, {}
    old = [str(part.relative_to(settings.data_dir)) for part in superseded(settings.features, made)]
    with staging(settings.data_dir, replaces=("features/*.parquet", "features/seen/*", *old)) as stage:
        folder, paths = stage / "features", dict[str, list[Path]]()
        for view, query in queries.items():
            with report.stage(f"compute {view}"):
                paths[view], part = compute(lake, view, query, made, settings.features, folder, paths, runs)
            with report.stage(f"judge {view}"):
                suite = VIEW_SUITES[view](bounds)
                verdict = check(runs.derive(suite.sql, {"landing": part}), suite)
                suites[view] = verdict.figures()
                docs[view] = data_docs(verdict, view, now, "../index.html")
        bad = {view: rejections(suite) for view, suite in suites.items() if suite["severity"] == "critical"}
        broken = [
            f"{view}: {rule} does not hold of {n:,} rows" for view, rules in bad.items() for rule, n in rules.items()
        ]
        severity = worst(suite["severity"] for suite in suites.values())
        found = {"refused": "; ".join(broken) or None, "severity": severity, "suites": suites}
        if tables:
            write_pages(settings.reports / "quality", docs, tables=tables, views=found)
        if broken:
            raise GateFailed(f"{found['refused']}: features and online store stay as they were")
        remember(settings.lake, folder)
        made.write(folder)
