"""What a protocol's table says: means with intervals, a model against every other method, and groups of users."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.errors import DataError
from recsys.training.bootstrap import interval, resampled_means
from recsys.training.measure import NOTHING, Measured
from recsys.training.protocols import Ints

Row = dict[str, float]


@dataclass(frozen=True)
class ProtocolReport:
    """Figures of one table.

    Attributes:
        users: how many users were asked about.
        rows: by method, the means of `Measured.means`.
        intervals: by method and metric, the low and high ends of the 95 % bootstrap interval over users. "coverage" has
            none: it is no mean over users, and a resample, which has 63 % of them, covers less than they all do.
        model_minus: by other method and metric, the paired difference: "mean", "low", "high", and "ratio" of the
            means, None where the other's is 0. Empty where no model was measured.
        activity: groups of users by how much of them is known from before the cut, least first: "low" and "high" (both
            are in the group), "users", and "rows" as above, without "coverage".
    """

    users: int
    rows: dict[str, Row]
    intervals: dict[str, dict[str, tuple[float, float]]]
    model_minus: dict[str, dict[str, dict[str, float | None]]]
    activity: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def protocol_report(
    measured: Mapping[str, Measured], *, model: str = "model", groups: int = 4, samples: int = 1000, seed: int = 0
) -> ProtocolReport:
    """Compare methods that were measured on the same users.

    Args:
        measured: by method, see `comparison.compare_places` and `compare_people`.
        model: the method that is compared with every other one, where it is there.
        groups: how many groups by activity: by its quantiles, so of about as many users each.
        samples, seed: of the bootstrap; every method and difference sees the same resamples.

    Raises:
        DataError: there is nothing that was measured, or not the same users.
    """
    if not measured or not len(next(iter(measured.values())).users):
        raise DataError(NOTHING)
    first = next(iter(measured.values()))
    for name, one in measured.items():
        if not np.array_equal(one.users, first.users):
            raise DataError(f"methods must be measured on the same users (got {name} with {len(one.users):,} others)")
    metrics = [metric for metric in first.by_user if not np.isnan(first.by_user[metric]).all()]
    values = np.stack([measured[name].by_user[metric] for name in measured for metric in metrics], axis=1)
    means = resampled_means(values, samples=samples, seed=seed).reshape(samples, len(measured), len(metrics))
    low, high = interval(means)
    rows = {name: one.means() for name, one in measured.items()}
    return ProtocolReport(
        users=len(first.users),
        rows=rows,
        intervals={
            name: {metric: (float(low[i, j]), float(high[i, j])) for j, metric in enumerate(metrics)}
            for i, name in enumerate(measured)
        },
        model_minus=_differences(rows, means, metrics, model),
        activity=[
            {
                "low": int(first.activity[group].min()),
                "high": int(first.activity[group].max()),
                "users": int(group.sum()),
                "rows": {name: one.means(among=group) for name, one in measured.items()},
            }
            for group in activity_groups(first.activity, groups)
        ],
    )


def activity_groups(activity: Ints, groups: int) -> list[npt.NDArray[np.bool_]]:
    """(U,) numbers → (U,) masks, between quantiles of them; users of one number stay together, no group is empty."""
    edges = np.quantile(activity, np.arange(1, groups) / groups)
    group = np.searchsorted(edges, activity, side="left")
    return [group == one for one in np.unique(group)]


def _differences(
    rows: dict[str, Row], means: npt.NDArray[np.float64], metrics: list[str], model: str
) -> dict[str, dict[str, dict[str, float | None]]]:
    """(R, methods, metrics) means of resamples → see `ProtocolReport.model_minus`."""
    names = list(rows)
    if model not in names:
        return {}
    low, high = interval(means[:, names.index(model)][:, None] - means)
    return {
        name: {
            metric: {
                "mean": rows[model][metric] - rows[name][metric],
                "low": float(low[i, j]),
                "high": float(high[i, j]),
                "ratio": rows[model][metric] / rows[name][metric] if rows[name][metric] else None,
            }
            for j, metric in enumerate(metrics)
        }
        for i, name in enumerate(names)
        if name != model
    }
