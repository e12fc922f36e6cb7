"""The proof that a user can run: training rows against raw events, online features against history."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs import materialize
from jobs.landing import event_log
from jobs.opened import opened
from jobs.report import Report
from recsys import verify
from recsys.errors import NotReady
from recsys.features import LiveStates
from recsys.profiles import views
from recsys.refresh import Made, continues, wanted
from recsys.settings import Settings
from recsys.training.snapshots import split_weeks
from recsys.verify import Finding, sample

VIEWS = (*verify.KEYS, "user_profile", "place_profile")  # what parity compares


def run(
    settings: Settings, report: Report, *, pit: bool = True, parity: bool = True, repair: bool = False,
    samples: int = 200,
) -> None:  # fmt: skip
    """Recompute a sample and compare; the command's exit code says whether all of it agreed.

    Args:
        settings: where things are.
        report: by view: rows compared, how many are off or missing, the largest difference, ages; `severity`.
        pit: training rows against raw events.
        parity: online features against history.
        repair: fill the online store again, and look again.
        samples: keys of each view.

    Raises:
        NotReady: nothing was materialized.
    """
    with opened(settings) as (lake, store):
        made = Made.read(settings.features)
        if made is None:
            raise NotReady("there are no features yet: run `recsys materialize`")
        queries, live, log = views(lake.source()), LiveStates(store), event_log(settings, lake)
        definitions = (settings.feature_repo / "definitions.py").read_text(encoding="utf-8")
        now_made = wanted(lake, queries, definitions, *lake.horizon(), made.landed)
        stale = None if now_made.source == made.source else continues(lake, settings.features, now_made)[1]
        report["behind"] = stale
        if pit:
            split = split_weeks(made.start, made.end)
            for moment in (split.train[0][0], split.valid[0], split.end):
                with report.stage(f"point in time, {moment:%Y-%m-%d}"):
                    found = verify.pit(lake, store, moment, sample(lake, samples, settings.seed, moment))
                    report.update(**{f"pit {moment:%m-%d}": _figures(found)})
        if parity:
            with report.stage("parity"), tempfile.TemporaryDirectory() as scratch:
                # an event is at most as late as the last one that was logged: that, or the end of the data, is now
                pending = [event.interaction() for event in log.read(made.landed)]
                last = max([made.end.timestamp(), *(e.at_us / 1e6 + 1e-6 for e in pending)])
                now = datetime.fromtimestamp(last, UTC)
                keys = sample(lake, samples, settings.seed, now)
                found = verify.parity(lake, store, now, keys, queries, made.start, pending, Path(scratch))
                report["parity"] = _figures(found)
            report["mark"] = vars(live.mark())
    groups = {name: value for name, value in report.figures.items() if name.startswith(("pit", "parity"))}
    off = sum(one["off"] for group in groups.values() for one in group.values())
    report["severity"] = "critical" if off else "warning" if stale else "ok"
    _show(report, groups, stale)
    if repair and report.figures["severity"] != "ok":
        materialize.run(settings, report, refill=True)
        report.console.print("repaired; looking again")
        for name in groups:
            report.figures.pop(name)
        run(settings, report, pit=pit, parity=parity, samples=samples)


def _figures(found: list[Finding]) -> dict[str, Any]:
    return {one.view: {k: v for k, v in vars(one).items() if k != "view"} for one in found}


def _show(report: Report, groups: dict[str, Any], stale: str | None) -> None:
    # 80 columns are what there is when no terminal listens
    title = "recomputed and compared; age: days since the last event"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("proof", "view"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "off", "missing", "worst", "age, 50/95/100 %"):
        table.add_column(name, no_wrap=True, justify="right")
    examples = []
    for name, group in groups.items():
        for view, one in group.items():
            color = "red" if one["off"] else "green"
            ages = "/".join(f"{age:.1f}" for age in one["age_days"])
            figures = (f"{one['sampled']:,}", f"[{color}]{one['off']}[/]", str(one["missing"]), f"{one['worst']:.0e}")
            table.add_row(name, view, *figures, ages)
            examples += [f"off, {name}, {view}: {example}" for example in one["examples"][:2]]
    report.console.print(table)
    for example in examples:
        report.console.print(escape(example), soft_wrap=True)
    if stale:
        report.console.print(
            f"[yellow]the lake moved on since the features were made: {stale}[/]; `recsys materialize`"
        )
