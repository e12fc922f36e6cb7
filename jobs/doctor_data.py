"""What `recsys doctor` looks at of the data: tables, feature views, decisions. It changes nothing.

Each check imports what it needs by itself, see `recsys.health`. No lake is opened: that would end what a killed job
left half done.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from recsys.health import Verdict
from recsys.settings import Settings

_OLD: Final = timedelta(days=2)  # of features of data that go on


def engine(settings: Settings) -> Verdict:
    """What runs the features' SQL; for Spark, what it needs here."""
    if settings.engine != "spark":
        return Verdict("ok", "DuckDB")
    from recsys.spark import require_spark

    return Verdict("ok", f"Spark, on Java {require_spark()}")


def landing(settings: Settings) -> Verdict:
    """What landed, and whether the gate has judged it."""
    from recsys.schemas import TABLES

    paths = {name: settings.landing / f"{name}.parquet" for name in TABLES}
    landed = {name: _written(path) for name, path in paths.items() if path.exists()}
    if not landed:
        return Verdict("not applicable", "nothing has landed", "recsys generate, or recsys ingest")
    if missing := [name for name in TABLES if name not in landed]:
        return Verdict("error", f"{', '.join(missing)} did not land", "recsys generate, or recsys ingest")
    newest, batch = max(landed.values()), settings.lake / "batch.json"
    if not batch.exists() or _written(batch) < newest:
        return Verdict("warning", f"what landed at {newest:%Y-%m-%d %H:%M} is not validated", "recsys validate")
    return Verdict("ok", f"landed at {newest:%Y-%m-%d %H:%M}, and accepted")


def quality(settings: Settings) -> Verdict:
    """What the gate and the judges of the feature views said last."""
    from jobs.quality import judged

    parts = [part for part in (judged(settings, "tables"), judged(settings, "views")) if part]
    if not parts:
        return Verdict("not applicable", "nothing has been judged yet", "recsys validate")
    if refused := "; ".join(part["refused"] for part in parts if part["refused"]):
        return Verdict("error", f"refused: {refused}", "recsys quality")
    suites = [suite for part in parts for suite in part["suites"].values()]
    rows, rejected = (sum(suite[key] for suite in suites) for key in ("rows", "rejected"))
    said = f"{rejected:,} of {rows:,} rows are in quarantine"
    if any(part["severity"] != "ok" for part in parts):
        return Verdict("warning", said, "recsys quality")
    return Verdict("ok", said)


def features(settings: Settings) -> Verdict:
    """Whether the feature views are those of the lake as it is now."""
    from recsys.dataset import read_source
    from recsys.refresh import MADE, Made

    if not (settings.lake / "interactions.parquet").exists():
        return Verdict("not applicable", "the lake holds no data yet", "recsys validate")
    made, path = Made.read(settings.features), settings.features / MADE
    if made is None:
        return Verdict("warning", "there are no features yet", "recsys materialize")
    end, at, lake = _last_event(settings.lake), _written(path), max(map(_written, settings.lake.glob("*.parquet")))
    if end >= made.end:
        said = f"features know what was before {made.end:%Y-%m-%d}, the data go on to {end:%Y-%m-%d %H:%M} (UTC)"
        return Verdict("warning", said, "recsys materialize")
    if lake > at:
        said = f"the lake changed at {lake:%Y-%m-%d %H:%M}, after the features were made ({at:%Y-%m-%d %H:%M})"
        return Verdict("warning", said, "recsys materialize")
    age = datetime.now(UTC) - at
    said = f"up to {made.end:%Y-%m-%d}, made {age.days} days and {age.seconds // 3600} hours ago"
    if age > _OLD and not read_source(settings.lake).get("synthetic", False):
        return Verdict("warning", said, "recsys ingest, recsys validate, recsys materialize")
    return Verdict("ok", said)


def safety(settings: Settings) -> Verdict:
    """The lists of blocks and hidden places: without one that can be read, nothing is answered."""
    from recsys.safety import Safety

    folders = sorted(path for path in settings.safety.glob("*") if path.is_dir())
    if not folders:
        return Verdict("not applicable", "nobody is blocked, and no place hidden")
    hidden = sum(len(Safety(folder).hidden()) for folder in folders)  # says what is damaged
    return Verdict("ok", f"can be read; {hidden:,} places are hidden")


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _last_event(lake: Path) -> datetime:
    """The moment of the last interaction or live event, from the footers of the files."""
    import pyarrow.parquet as pq

    moments = []
    for name in ("interactions", "events"):
        if (path := lake / f"{name}.parquet").exists():
            about = pq.read_metadata(path)
            column = about.schema.names.index("timestamp")
            groups = [about.row_group(i).column(column).statistics for i in range(about.num_row_groups)]
            moments += [group.max for group in groups if group is not None and group.has_min_max]
    last: datetime = max(moments)  # UTC, by the tables' contract
    return last
