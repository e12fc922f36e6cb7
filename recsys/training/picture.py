"""What a training report draws: figures by city and activity, the worst users, vectors on a plane; plain data."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.graph import Snapshot
from recsys.models.backbone import Embeddings
from recsys.models.encoders import block
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.training.bootstrap import interval, resampled_means
from recsys.training.evaluation import METRICS, Evaluation, bootstrap_difference, place_scores
from recsys.training.inputs import Prepared
from recsys.training.protocol_report import activity_groups

Ints = npt.NDArray[np.int64]
_NDCG: Final = METRICS.index("ndcg")
_WORST: Final = 10  # users shown
_DOTS: Final = 1_000  # of a map: more would only cover each other, and make the page heavy


def group_rows(result: Evaluation, snapshot: Snapshot, cities: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """NDCG of every method by home city and by how much of a user was known.

    Args:
        result: measured on the snapshot.
        snapshot: whose users they are.
        cities: names by city id.

    Returns:
        "all", "city" and "activity", each rows {group, users, means: by method (mean, low, high), minus: by other
        method the same of the paired difference}; intervals are 95 % of the bootstrap over the group's users.
    """
    everyone = snapshot.data["user"].user_id.numpy()
    at = np.searchsorted(everyone, result.user_id)
    home = _cities(snapshot)[torch.from_numpy(at)].numpy()
    visited = np.bincount(snapshot.past.keys.numpy() // max(len(snapshot.place_online), 1), minlength=len(everyone))[at]
    whole = np.ones(len(at), dtype=bool)
    by_city = [(cities.get(c, f"city {c}"), home == c) for c in np.unique(home).tolist()]
    by_activity = [(_span(visited[group]), group) for group in (activity_groups(visited, 4) if len(at) else [])]
    return {
        "all": [_row("all", whole, result)] if len(at) else [],
        "city": [_row(name, group, result) for name, group in by_city],
        "activity": [_row(name, group, result) for name, group in by_activity],
    }


def _span(numbers: Ints) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _row(name: str, group: npt.NDArray[np.bool_], result: Evaluation) -> dict[str, Any]:
    values = {method: per_user[_NDCG][group] for method, per_user in result.per_user.items()}
    low, high = interval(resampled_means(np.stack(list(values.values()), axis=1)))
    model = values["model"]
    differences = {m: bootstrap_difference(model, v) for m, v in values.items() if m != "model"}
    return {
        "group": name,
        "users": int(group.sum()),
        "means": {m: (float(v.mean()), float(low[i]), float(high[i])) for i, (m, v) in enumerate(values.items())},
        "minus": {m: (d["mean"], d["low"], d["high"]) for m, d in differences.items()},
    }


def worst_users(
    model: RecModel,
    prepared: Prepared,
    embeddings: Embeddings,
    result: Evaluation,
    *,
    cities: Mapping[int, str],
    places: Mapping[int, str],
) -> list[dict[str, Any]]:
    """The users with the lowest NDCG, of equals those who wanted most.

    Args:
        model, prepared, embeddings, result: the model, measured on the snapshot.
        cities: names by city id. places: names by place id.

    Returns:
        Rows {user_id, city, visited, ndcg, wanted: names, got: names in order, hits: bool for each of `got`}.
    """
    data, ranker = prepared.snapshot.data, Ranker(model.config, model.heads)
    place_id, ndcg = data["place"].place_id, result.per_user["model"][_NDCG]
    rows = np.searchsorted(data["user"].user_id.numpy(), result.user_id)
    n_places = len(prepared.places.city)
    user, place = prepared.positive_keys // n_places, prepared.positive_keys % n_places
    at_home = prepared.users.city[user] == prepared.places.city[place]
    user, place = user[at_home], place[at_home]
    wanted = torch.bincount(user, minlength=len(prepared.users.city)).numpy()[rows]
    visited = torch.bincount(prepared.snapshot.past.keys // n_places, minlength=len(prepared.users.city))
    found = []
    for i in np.lexsort((result.user_id, -wanted, ndcg))[:_WORST].tolist():
        one = torch.tensor([int(rows[i])])
        city = int(prepared.users.city[one])
        position, scores = place_scores(ranker, embeddings, prepared, one, city, result.candidates)
        order = scores[0].argsort(descending=True, stable=True)[: result.k]
        got, targets = prepared.places.of(city)[position[0][order]], place[user == one]
        found.append(
            {
                "user_id": int(result.user_id[i]),
                "city": cities.get(city, f"city {city}"),
                "visited": int(visited[one]),
                "ndcg": float(ndcg[i]),
                "wanted": _names(place_id[targets], places),
                "got": _names(place_id[got], places),
                "hits": torch.isin(got, targets).tolist(),
            }
        )
    return found


def _names(ids: Tensor, names: Mapping[int, str]) -> list[str]:
    return [names.get(i, f"place {i}") for i in ids.tolist()]


def vector_maps(
    prepared: Prepared, embeddings: Embeddings, *, cities: Mapping[int, str], categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Vectors on their first two principal components: people and places by city, places by category.

    Args:
        prepared, embeddings: of one snapshot.
        cities: names by city id. categories: names by position; a place counts for its first.

    Returns:
        Rows {title, x (n,), y (n,), group (n,) positions in `groups`, groups: names, explained: share of the variance};
        of more than 1,000 nodes every so-manieth.
    """
    names = [cities.get(c, f"city {c}") for c in range(int(prepared.places.sizes().shape[0]))]
    first = prepared.categories.argmax(dim=1)
    return [
        _map("People by home city", embeddings.user, prepared.users.city, names),
        _map("Places by city", embeddings.place, prepared.places.city, names),
        _map("Places by category", embeddings.place, first, categories),
    ]


def _map(title: str, vectors: Tensor, group: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    plane, explained = principal_plane(vectors)
    kept = torch.arange(0, len(vectors), max(1, -(-len(vectors) // _DOTS)))
    x, y = plane[kept].t().tolist()
    return {
        "title": title,
        "x": x,
        "y": y,
        "group": group[kept].tolist(),
        "groups": list(groups),
        "explained": explained,
    }


def principal_plane(vectors: Tensor) -> tuple[Tensor, float]:
    """(n, D) → (n, 2) on the two directions of most variance, and the share of the variance that they hold.

    A direction points where its largest component is positive, so the same vectors give the same picture.
    """
    centred = (vectors - vectors.mean(dim=0)).double()
    values, directions = torch.linalg.eigh(centred.t() @ centred)  # ascending
    two = directions[:, -2:].flip(1)
    largest = two.gather(0, two.abs().argmax(dim=0, keepdim=True))
    share = float(values[-2:].sum() / values.sum().clamp(min=1e-12))
    return (centred @ (two * largest.sign())).float(), share


def _cities(snapshot: Snapshot) -> Tensor:
    return block(snapshot.data["user"].x, snapshot.widths.user_x, "home_city_id").long()[:, 0]
