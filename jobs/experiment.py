"""What people did with the places that each version showed them: rates with intervals, and their difference."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.experiment_table import table
from jobs.landing import event_log
from jobs.report import Report
from recsys.errors import NotReady
from recsys.events import landable
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.training.bootstrap import interval, resampled_means

RATES: Final = {"click_through": "clicked", "attend_rate": "attended"}  # shares of what was shown
_SAMPLES: Final = 2_000
_ACT: Final = (
    'SELECT user_id, place_id, "timestamp" AS acted, attended, num_likes + num_saves + num_shares AS marks FROM '
)
# An event that passed the gate is an interaction too: user, place and moment are its key. A split compares people of
# the same days: what was shown before it began, or after it ended, takes no part.
_COUNTED: Final = """
    WITH acts AS (
        SELECT user_id, place_id, acted, bool_or(attended) AS attended, bool_or(NOT attended OR marks > 0) AS clicked
        FROM ({acts}) WHERE acted <= {until} GROUP BY ALL
    ), shown AS (
        SELECT * FROM impressions
        WHERE kind = 'place' AND user_id IS NOT NULL AND arm IN ('live', 'split') AND "at" <= {until}
    ), span AS (
        SELECT min("at") AS low, max("at") AS high FROM shown WHERE arm = 'split'
    ), told AS (
        SELECT model_version, arm, shown.user_id, request_id, item_id, "at", "at" + {window} <= {until} AS passed,
               coalesce(bool_or(clicked), false) AS clicked, coalesce(bool_or(attended), false) AS attended
        FROM shown CROSS JOIN span LEFT JOIN acts
          ON acts.user_id = shown.user_id AND place_id = item_id AND acted > "at" AND acted <= "at" + {window}
        WHERE low IS NULL OR "at" BETWEEN low AND high
        GROUP BY ALL
    )
    SELECT model_version, user_id, bool_or(arm = 'split') AS split, min("at") AS first, max("at") AS last,
           count(*) FILTER (passed) AS shown, count(*) FILTER (passed AND clicked) AS clicked,
           count(*) FILTER (passed AND attended) AS attended, count(*) FILTER (NOT passed) AS pending
    FROM told GROUP BY model_version, user_id ORDER BY model_version, user_id
"""
Doubles = npt.NDArray[np.float64]


def run(settings: Settings, report: Report, *, window_hours: float = 24.0, until: datetime | None = None) -> None:
    """Join impressions with what their users did at the same place within the window after them.

    Args:
        settings, report: where things are; gets the rates of each version, and the difference of two.
        window_hours: how long after it was shown an event counts; until then what was shown is pending.
        until: as of when; None: now, or for a synthetic world the last thing that was shown or happened.

    Raises:
        NotReady: nothing was shown.
        DataError: a file is damaged.
    """
    counted, now = _count(settings, timedelta(hours=window_hours), until)
    names = pc.unique(counted["model_version"]).to_pylist()
    rows = {str(name): counted.filter(pc.equal(counted["model_version"], name)) for name in names}
    drawn = {
        name: _shares(resampled_means(_sums(of), samples=_SAMPLES, seed=seed))
        for seed, (name, of) in enumerate(rows.items())
    }
    report.update(until=now.isoformat(), window_hours=window_hours)
    report["versions"] = {name: _figures(of, drawn[name]) for name, of in rows.items()}
    report["difference"] = _difference(rows, drawn)
    report.console.print(table(report.figures))


def _count(settings: Settings, window: timedelta, until: datetime | None) -> tuple[pa.Table, datetime]:
    """Of each version and user: places shown whose window has passed, clicked, gone to; and those that are pending."""
    with (
        Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake,
        TemporaryDirectory() as folder,
    ):
        log = Path(folder) / "log.parquet"
        pq.write_table(told := landable(event_log(settings, lake), 0), log)
        if until is None:
            until = datetime.now(UTC)
            if lake.source().get("synthetic"):  # a synthetic world has a time of its own
                (last,) = lake.query('SELECT max("at") AS last FROM impressions').to_pylist()
                until = max(last["last"], pc.max(told["timestamp"]).as_py() or last["last"])
        until = until.astimezone(UTC) if until.tzinfo else until.replace(tzinfo=UTC)
        tables = ["logged", *(name for name in lake.tables() if name == "interactions")]
        sql = _COUNTED.format(
            acts=" UNION ALL ".join(_ACT + name for name in tables),
            until=f"TIMESTAMPTZ '{until.isoformat()}'",
            window=f"INTERVAL {round(window.total_seconds() * 1e6)} MICROSECONDS",
        )
        counted = [part for part in lake.derive(sql, {"logged": log}) if len(part)]
    if not counted:
        raise NotReady("no place was shown to a known user yet: `recsys serve` writes what it shows")
    return pa.concat_tables(counted), until


def _sums(rows: pa.Table) -> Doubles:
    """(U, 3) of each user: places shown, clicked, gone to."""
    return np.stack([np.asarray(rows[name], dtype=np.float64) for name in ("shown", *RATES.values())], axis=1)


def _shares(sums: Doubles) -> Doubles:
    """(R, 3) → (R, 2) rates; NaN where nothing was shown."""
    out: Doubles = sums[:, 1:] / np.where(sums[:, :1] > 0, sums[:, :1], np.nan)
    return out


def _rates(rows: pa.Table) -> Doubles:
    rates: Doubles = _shares(_sums(rows).sum(axis=0, keepdims=True))[0]
    return rates


def _figures(rows: pa.Table, drawn: Doubles) -> dict[str, Any]:
    whole = {name: int(pc.sum(rows[name]).as_py()) for name in ("shown", "clicked", "attended", "pending")}
    moments = {name: of(rows[name]).as_py().isoformat() for name, of in (("first", pc.min), ("last", pc.max))}
    return {"users": int(np.count_nonzero(rows["shown"])), **whole, **moments, **_with_intervals(_rates(rows), drawn)}


def _with_intervals(rates: Doubles, drawn: Doubles) -> dict[str, dict[str, float] | None]:
    if np.isnan(rates).any():  # nothing's window has passed
        return dict.fromkeys(RATES)
    found = np.stack([rates, *interval(drawn)], axis=1).tolist()
    return {name: dict(zip(("rate", "low", "high"), found[i], strict=True)) for i, name in enumerate(RATES)}


def _difference(rows: Mapping[str, pa.Table], drawn: Mapping[str, Doubles]) -> dict[str, Any] | None:
    """The split version minus the live one; without a split, the last version that was shown minus the one before."""
    latest = sorted(rows, key=lambda name: (pc.any(rows[name]["split"]).as_py(), pc.max(rows[name]["last"]).as_py()))
    if len(latest) < 2:
        return None
    tried, against = latest[-1], latest[-2]
    both = np.intersect1d(*(rows[name]["user_id"].to_numpy() for name in (tried, against)))
    return {
        "version": tried,
        "minus": against,
        "same_days": bool(pc.any(rows[tried]["split"]).as_py()),
        "users_of_both": len(both),  # the two sides are resampled as if these were different people
        **_with_intervals(_rates(rows[tried]) - _rates(rows[against]), drawn[tried] - drawn[against]),
    }
