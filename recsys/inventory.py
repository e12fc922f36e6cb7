"""What lies on disk, how much and how old: footers and small reports, no row is read. Nothing missing is an error."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def table_on_disk(path: Path, now: datetime) -> dict[str, Any] | None:
    """`rows`, `written_at` and `age_s` of a parquet file, or of a folder of its parts.

    Returns:
        None where there is none; `error` where it is damaged.
    """
    try:
        parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        written = datetime.fromtimestamp(max(part.stat().st_mtime for part in parts), UTC)
        return {"rows": sum(pq.read_metadata(part).num_rows for part in parts), **when("written_at", written, now)}
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a folder without parts
        return {"error": str(error)}


def last_run(path: Path, now: datetime) -> dict[str, Any] | None:
    """`seconds`, `started_at` and `age_s` of the last run of a job, by its report.

    Returns:
        None where it never ran; `error` where the report is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        started = datetime.fromisoformat(content["started_at"])
        return {"seconds": float(content["seconds"]), **when("started_at", started, now)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"error": f"{path} is damaged (got {error!r})"}


def read_report(path: Path) -> dict[str, Any] | None:
    """A report's JSON object; None where there is none, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def when(name: str, moment: datetime, now: datetime) -> dict[str, Any]:
    """A moment under a name, and its age, whole seconds."""
    return {name: moment.isoformat(), "age_s": max(0, round((now - moment).total_seconds()))}
