"""What a version reaches on the test weeks, kept beside it, and whether it may replace the one that serves."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.opened import load_model, opened
from recsys.artifacts import Artifact, open_artifact
from recsys.atomic import replacing
from recsys.errors import ArtifactError, NotReady
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.training.evaluation import Evaluation, bootstrap_difference, evaluate
from recsys.training.inputs import prepare
from recsys.training.snapshots import split_weeks, take_snapshot

FILE = "evaluation.parquet"
_ABOUT = b"measured"  # where the file's metadata says on what
_PEOPLE = b"people"  # and how far off the friend head's probabilities are
Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class Scorecard:
    """NDCG@10 of places by user: `user_id` (U,) int64, and `ndcg` (U,) float64."""

    user_id: npt.NDArray[np.int64]
    ndcg: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over users; 0 where there are none."""
        return float(self.ndcg.mean()) if len(self.ndcg) else 0.0


@dataclass(frozen=True)
class Comparison:
    """A version beside the one that serves.

    Attributes:
        sentence: what was found, or why nothing was compared.
        worse: its mean is lower, and so is the whole 95 % interval of the paired difference: no noise of the sample.
        serving: the version that serves. ndcg, serving_ndcg: both means; difference: "mean", "low", "high".
            None where nothing was compared.
    """

    sentence: str
    worse: bool = False
    serving: str | None = None
    ndcg: float | None = None
    serving_ndcg: float | None = None
    difference: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def keep(artifact: Artifact, result: Evaluation, *, data: str, window: Window) -> Scorecard:
    """Write a version's figures beside it: a file that is there whole or not at all, apart from what is hashed.

    Args:
        artifact: what was measured.
        result: what was found for every user of the window, no sample.
        data: the lake's fingerprint. window: from when, and until when.
    """
    card = Scorecard(result.user_id, result.per_user["model"][1])
    people = {"friend_ece": result.friend_ece, "attend_ece": result.attend_ece}
    about = {_ABOUT: json.dumps(_about(data, window)).encode(), _PEOPLE: json.dumps(people).encode()}
    table = pa.table({"user_id": card.user_id, "ndcg": card.ndcg}).replace_schema_metadata(about)
    with replacing(artifact.folder / FILE) as aside:
        pq.write_table(table, aside)
    return card


def kept(artifact: Artifact, *, data: str, window: Window) -> Scorecard | None:
    """A version's figures on these data and this window; None where it was not measured on them."""
    try:
        table = pq.read_table(artifact.folder / FILE)
        about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"null"))
    except (OSError, ValueError, pa.ArrowException):  # never measured, or damaged: it is measured again
        return None
    if about != _about(data, window):
        return None
    return Scorecard(table["user_id"].to_numpy(), table["ndcg"].to_numpy())


def against(settings: Settings, artifact: Artifact, serving: str | None) -> Comparison:
    """Compare a version with the one that serves on the test weeks of the data that are here.

    What was measured on the same data and weeks already is not measured again.

    Raises:
        ArtifactError: the version, not the serving one, is damaged or does not fit this code.
    """
    if serving is None:
        return Comparison("no version serves yet: nothing to compare with")
    if serving == artifact.version:
        return Comparison(f"version {serving} serves already", serving=serving)
    if not (settings.lake.exists() and settings.features.exists()):
        return Comparison(f"not compared with {serving}, which serves: there are no data here", serving=serving)
    with opened(settings) as (lake, store):
        _, end = lake.horizon()
        try:
            there = open_artifact(settings.artifacts, serving)
            there.require_taxonomy(lake.taxonomy())
            for one in (artifact, there):  # it may have learned from the weeks that test
                if datetime.fromisoformat(one.manifest["until"]) > end:
                    raise NotReady(f"version {one.version} is of data beyond those that are here, up to {end:%Y-%m-%d}")
            theirs = _measured(there, lake, store)
        except (ArtifactError, NotReady) as error:  # it cannot be measured, or this code could not serve it either
            return Comparison(f"not compared with {serving}, which serves: {error}", serving=serving)
        mine = _measured(artifact, lake, store)
    return _compared(artifact.version, mine, serving, theirs)


def _compared(version: str, mine: Scorecard, serving: str, theirs: Scorecard) -> Comparison:
    both, i, j = np.intersect1d(mine.user_id, theirs.user_id, return_indices=True)
    difference = bootstrap_difference(mine.ndcg[i], theirs.ndcg[j])
    worse = len(both) > 0 and difference["high"] < 0
    said = "is worse than" if worse else "is not worse than"
    sentence = (
        f"version {version} {said} {serving}, which serves: NDCG@10 {mine.mean:.4f} against {theirs.mean:.4f} on the "
        f"test weeks, difference {difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
    )
    return Comparison(sentence, worse, serving, mine.mean, theirs.mean, difference)


def _measured(artifact: Artifact, lake: Lake, store: FeatureStore) -> Scorecard:
    data, window = lake.fingerprint(), split_weeks(*lake.horizon()).test
    card = kept(artifact, data=data, window=window)
    if card is not None:
        return card
    model = load_model(artifact)
    prepared = prepare(take_snapshot(lake, store, *window), model.config)
    return keep(artifact, evaluate(model, prepared, baselines=False, people=False), data=data, window=window)


def _about(data: str, window: Window) -> dict[str, Any]:
    return {"data": data, "window": [moment.isoformat() for moment in window], "metric": "ndcg@10"}
