"""Full-catalogue evaluation in time: retrieve in the city, rank by the head, count what was found.

A user's targets are the distinct places of the home city with a positive in the label window. Recall@k is hits over
min(k, targets), NDCG@k is binary, candidate recall is that of the retrieved set; users without targets do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.constants import SLOT_NOT_SAID
from recsys.models.backbone import Embeddings
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.training.baselines import Baseline, OwnHistory, Popularity, Random
from recsys.training.bootstrap import interval, resampled_means
from recsys.training.calibration import ReliabilityBin, expected_calibration_error, reliability
from recsys.training.inputs import Prepared
from recsys.training.lists import city_lists

Floats = npt.NDArray[np.float64]
METRICS = ("recall", "ndcg", "candidate_recall")
MOST_USERS: Final = 10_000  # measured unless told otherwise: a mean over as many is known to about ± .005
_BLOCK = 512  # users scored against their city's catalogue at once
_HEAD_BLOCK = 48  # users whose candidates go through the head at once: 48 × 200 rows of 256 floats stay in cache


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a window, beside its baselines.

    Attributes:
        k, candidates: sizes of the list and of the retrieved set.
        users: how many users had a target.
        rows: by method ("model", "popularity", …) the means of `METRICS`.
        differences: by baseline and metric, model minus baseline: mean and the 95 % bootstrap interval over users.
        friend_auc: compatibility, over all labels of the window; None where one class is missing.
        attend_auc: attendance over all labels.
        attend_auc_compatible: attendance over compatible pairs.
        friend_ece, attend_ece: expected calibration error of both probabilities over all labels; None without labels.
        reliability: by "friend" and "attend" the tables behind these; empty without labels.
        user_id: (U,) int64, who had a target, in the order of `per_user`.
        per_user: by method (3, U) float64, `METRICS` of each.
    """

    k: int
    candidates: int
    users: int
    rows: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Mapping[str, float]]]
    friend_auc: float | None
    attend_auc: float | None
    attend_auc_compatible: float | None
    friend_ece: float | None
    attend_ece: float | None
    reliability: Mapping[str, Sequence[ReliabilityBin]] = field(repr=False)
    user_id: npt.NDArray[np.int64] = field(repr=False)
    per_user: Mapping[str, Floats] = field(repr=False)

    @property
    def difference(self) -> Mapping[str, Mapping[str, float]]:
        """By metric, model minus popularity."""
        return self.differences.get("popularity", {})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the per-user values."""
        return {
            "k": self.k,
            "candidates": self.candidates,
            "users": self.users,
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "model_minus": {name: {m: dict(v) for m, v in row.items()} for name, row in self.differences.items()},
            "friend_auc": self.friend_auc,
            "attend_auc": self.attend_auc,
            "attend_auc_compatible": self.attend_auc_compatible,
            "friend_ece": self.friend_ece,
            "attend_ece": self.attend_ece,
        }


def ranking_metrics(
    hits: npt.NDArray[np.bool_] | Floats, n_targets: npt.NDArray[np.int64], k: int
) -> tuple[Floats, Floats]:
    """Recall@k and binary NDCG@k of ranked lists.

    Args:
        hits: (B, L) whether the item at each rank is a target, or how probably; L may be below k (a small catalogue).
        n_targets: (B,) at least 1.
        k: length of the list that counts.

    Returns:
        (B,) and (B,) float64 in [0, 1].
    """
    hits = hits[:, :k]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.minimum(n_targets, k)
    recall = hits.sum(axis=1) / best
    ndcg = (hits * discount[: hits.shape[1]]).sum(axis=1) / discount.cumsum()[best - 1]
    return recall, ndcg


def auc(scores: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: how often a positive is above a negative, ties half (Mann-Whitney).

    Args:
        scores: (N,). labels: (N,) bool.

    Returns:
        A number in [0, 1], or None where one class is missing.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks = (last - (counts - 1) / 2.0)[inverse]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def bootstrap_difference(a: Floats, b: Floats, *, samples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Paired mean difference a - b over users, with its 95 % percentile bootstrap interval.

    Args:
        a, b: (U,) values by user.
        samples: resamples of the users.
        seed: of the resampling.
    """
    difference = a - b
    if len(difference) == 0:
        return {"mean": 0.0, "low": 0.0, "high": 0.0}
    (low,), (high,) = interval(resampled_means(difference[:, None], samples=samples, seed=seed))
    return {"mean": float(difference.mean()), "low": float(low), "high": float(high)}


@torch.inference_mode()
def embed(model: RecModel, prepared: Prepared) -> Embeddings:
    """Vectors of all nodes as of the snapshot's moment, the model in eval mode; on the CPU, wherever the model is."""
    training = model.training
    model.eval()
    try:
        out: Embeddings = model(prepared.graph)
        return Embeddings(out.user.cpu(), out.people.cpu(), out.place.cpu())
    finally:
        model.train(training)


def evaluate(
    model: RecModel,
    prepared: Prepared,
    *,
    embeddings: Embeddings | None = None,
    k: int = 10,
    candidates: int = 200,
    max_users: int = MOST_USERS,
    baselines: bool = True,
    people: bool = True,
    beside: Sequence[Baseline] = (),
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on a snapshot's label window.

    Args:
        model: the model.
        prepared: the snapshot; its graph ends where its labels begin.
        embeddings: `embed(model, prepared)`, where it is at hand.
        k: length of the list.
        candidates: how many places retrieval hands to the head.
        max_users: where there are more, evaluate a fixed random sample of this many: each is compared with all places
            of a city, of which a larger world has more as well.
        baselines: also random, popularity and own history.
        people: also the friend head.
        beside: further methods to measure on the same users.
        seed: of the sample, the random baseline, ties and the bootstrap.
    """
    embeddings = embeddings or embed(model, prepared)
    training = model.training
    ranker = Ranker(model.config, model.heads)
    try:
        user, place, chosen = _targets(prepared, max_users, seed)
        simple: list[Baseline] = [Random(seed), Popularity(prepared, seed), OwnHistory(prepared, seed)]
        methods = [*(simple if baselines else []), *beside]
        per_user = _places(ranker, embeddings, prepared, user, place, chosen, methods, k, candidates)
        rows = {
            name: {metric: float(v.mean()) if len(v) else 0.0 for metric, v in zip(METRICS, values, strict=True)}
            for name, values in per_user.items()
        }
        differences = {
            method.name: {
                metric: bootstrap_difference(per_user["model"][i], per_user[method.name][i], seed=seed)
                for i, metric in enumerate(METRICS)
            }
            for method in methods
        }
        about_people = _people(ranker, embeddings, prepared) if people else _NO_PEOPLE
    finally:
        model.train(training)
    by_city = chosen[torch.argsort(prepared.users.city[chosen], stable=True)]  # as `_places` goes through them
    user_id = prepared.snapshot.data["user"].user_id[by_city].numpy()
    return Evaluation(k, candidates, len(chosen), rows, differences, *about_people, user_id=user_id, per_user=per_user)


def _targets(prepared: Prepared, max_users: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct (user, place) targets in the home city, and the users that have any (or a sample of them)."""
    n_places = len(prepared.places.city)
    user, place = prepared.positive_keys // n_places, prepared.positive_keys % n_places
    home = prepared.users.city[user] == prepared.places.city[place]
    user, place = user[home], place[home]
    chosen = torch.unique(user)
    if max_users is not None and len(chosen) > max_users:
        drawn = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:max_users]
        chosen = chosen[drawn].sort().values
    return user, place, chosen


@torch.inference_mode()
def _places(
    ranker: Ranker,
    embeddings: Embeddings,
    prepared: Prepared,
    user: Tensor,
    place: Tensor,
    chosen: Tensor,
    methods: list[Baseline],
    k: int,
    candidates: int,
) -> dict[str, Floats]:
    """By method (3, U): `METRICS` of every chosen user."""
    found: dict[str, list[Floats]] = {name: [] for name in ("model", *(m.name for m in methods))}
    n_users = len(prepared.users.city)
    for city in torch.unique(prepared.users.city[chosen]).tolist():
        members = prepared.places.of(city)
        everyone = chosen[prepared.users.city[chosen] == city]
        for block in torch.split(everyone, _BLOCK):
            row = torch.full((n_users,), -1).scatter_(0, block, torch.arange(len(block)))
            mine = row[user] >= 0
            targets = torch.zeros(len(block), len(members), dtype=torch.bool)
            targets[row[user[mine]], prepared.places.position[place[mine]]] = True
            n_targets = targets.sum(dim=1).numpy()
            wide = min(candidates, len(members))

            def measure(
                retrieved: Tensor, ranked: Tensor, targets: Tensor = targets, n: npt.NDArray[np.int64] = n_targets
            ) -> Floats:
                hits = targets.gather(1, retrieved).numpy().sum(axis=1)
                recall, ndcg = ranking_metrics(targets.gather(1, ranked).numpy(), n, k)
                return np.stack([recall, ndcg, hits / np.minimum(n, candidates)])

            retrieved, scores = place_scores(ranker, embeddings, prepared, block, city, candidates)
            order = scores.argsort(dim=1, descending=True, stable=True)
            found["model"].append(measure(retrieved, retrieved.gather(1, order[:, :k])))
            for method in methods:
                best = method.scores(block, members).topk(wide, dim=1).indices
                found[method.name].append(measure(best, best[:, :k]))
    empty = np.zeros((len(METRICS), 0))
    return {name: np.concatenate(blocks, axis=1) if blocks else empty for name, blocks in found.items()}


def retrieval_ndcg(model: RecModel, prepared: Prepared, *, max_users: int | None = None, seed: int = 0) -> float:
    """Mean NDCG@10 of the vectors alone over the users' home cities."""
    embeddings = embed(model, prepared)
    _, _, chosen = _targets(prepared, max_users, seed)
    found = []
    for city in torch.unique(prepared.users.city[chosen]).tolist():
        members = prepared.places.of(city)
        for block in torch.split(chosen[prepared.users.city[chosen] == city], _BLOCK):
            best = (embeddings.user[block] @ embeddings.place[members].t()).topk(min(10, len(members)), dim=1).indices
            targets = prepared.is_positive(block[:, None], members[None])
            found.append(ranking_metrics(targets.gather(1, best).numpy(), targets.sum(dim=1).numpy(), 10)[1])
    return float(np.concatenate(found).mean()) if found else 0.0


@torch.inference_mode()
def place_scores(
    ranker: Ranker, embeddings: Embeddings, prepared: Prepared, users: Tensor, city: int, candidates: int
) -> tuple[Tensor, Tensor]:
    """(B,) users → (B, C) candidates, as positions in the city, and their logits, as of a request without a slot."""
    positions, scores = [], []
    for u in torch.split(users, _HEAD_BLOCK):
        lists = city_lists(prepared, embeddings, u, city, candidates)
        place, inputs = lists.inputs(prepared)
        logits = ranker.place_logits(
            embeddings.user[u],
            embeddings.place[place],
            inputs,
            city=torch.full_like(u, city),
            slot=torch.full_like(u, SLOT_NOT_SAID),
            categories=torch.zeros(len(u), ranker.config.n_categories),
        )
        positions.append(lists.position)
        scores.append(logits)
    return torch.cat(positions), torch.cat(scores)


def people_scores(ranker: Ranker, embeddings: Embeddings, prepared: Prepared) -> tuple[Tensor, Tensor]:
    """(L,) compatibility and attendance logits of the window's friend labels, without a context."""
    friends = prepared.snapshot.friends
    return pair_scores(ranker, embeddings, prepared, friends.user_u, friends.user_v)


def pair_scores(
    ranker: Ranker, embeddings: Embeddings, prepared: Prepared, user: Tensor, peer: Tensor
) -> tuple[Tensor, Tensor]:
    """(L,) compatibility and attendance logits of (L,) and (L,) indices, without a context."""
    config, found = ranker.config, []
    # to ask the sources takes time with the square of a city's people
    read = prepared.people_inputs if ranker.reads_signals else prepared.snapshot.people_features
    for u, v in zip(torch.split(user, 8192), torch.split(peer, 8192), strict=True):
        found.append(
            ranker.people_logits(
                embeddings.people[u],
                embeddings.people[v][:, None],
                read(u, v)[:, None],
                city=prepared.users.city[v],
                slot=torch.full_like(u, SLOT_NOT_SAID),
                place=torch.zeros(len(u), config.d_model),
                tags=torch.zeros(len(u), config.n_tags),
            )
        )
    compat, attend = (torch.cat(logits)[:, 0] for logits in zip(*found, strict=True))
    return compat, attend


_People = tuple[
    float | None, float | None, float | None, float | None, float | None, Mapping[str, Sequence[ReliabilityBin]]
]
_NO_PEOPLE: Final[_People] = (None, None, None, None, None, {})


def _people(ranker: Ranker, embeddings: Embeddings, prepared: Prepared) -> _People:
    """The last attributes of `Evaluation`, from `friend_auc` to `reliability`."""
    friends = prepared.snapshot.friends
    if len(friends.user_u) == 0:
        return _NO_PEOPLE
    compat, attend = people_scores(ranker, embeddings, prepared)
    matches, came = friends.compat > 0.5, friends.attend > 0.5
    friend, attendance = (compat.sigmoid(), matches), (attend.sigmoid(), came)
    return (
        auc(compat.numpy(), matches.numpy()),
        auc(attend.numpy(), came.numpy()),
        auc(attend[matches].numpy(), came[matches].numpy()),
        expected_calibration_error(*friend),
        expected_calibration_error(*attendance),
        {"friend": reliability(*friend), "attend": reliability(*attendance)},
    )
