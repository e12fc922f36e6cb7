"""The training report on disk: `recsys train` draws it of the validation weeks, `recsys evaluate` of the test weeks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from recsys.atomic import replacing
from recsys.graph import Snapshot
from recsys.lake import Lake
from recsys.training.evaluation import Evaluation
from recsys.training.page import page
from recsys.training.picture import group_rows

FILE: Final = "training.html"


@dataclass(frozen=True)
class Names:
    """What numbers are called: cities and places by id, categories by position."""

    cities: Mapping[int, str]
    places: Mapping[int, str]
    categories: Sequence[str]

    @classmethod
    def of(cls, lake: Lake) -> "Names":
        """Read them."""
        rows = lake.query("SELECT place_id, name, city_id, city_name FROM places").to_pylist()
        return cls(
            {row["city_id"]: row["city_name"] for row in rows},
            {row["place_id"]: row["name"] for row in rows},
            lake.taxonomy().categories,
        )


def write(
    folder: Path,
    version: str,
    metrics: Mapping[str, Any],
    names: Names,
    result: Evaluation,
    snapshot: Snapshot,
    *,
    weeks: str,
    window: tuple[datetime, datetime],
    maps: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Draw a version's page.

    Args:
        folder: where reports lie.
        version: which. metrics: its manifest's.
        names: of the lake.
        result: measured on the snapshot. snapshot: whose labels lie in `window`; weeks: what these are called.
        maps, worst: see `recsys.training.picture`; None: nobody was looked at.

    Returns:
        The path of the page.
    """
    first, last = (moment.date().isoformat() for moment in window)
    about = {
        "version": version,
        "measured_on": f"the {weeks}, {first} to {last}",
        "users": result.users,
        "reads": metrics["reads"],
        "best_epoch": metrics["best_epoch"],
    }
    picture = {
        "history": metrics["history"],
        "groups": group_rows(result, snapshot, names.cities),
        "ece": {"friend": result.friend_ece, "attend": result.attend_ece},
        "reliability": result.reliability,
        "worst": worst,
        "maps": maps,
    }
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        aside.write_text(page(about, picture), encoding="utf-8")
    return str(path)
