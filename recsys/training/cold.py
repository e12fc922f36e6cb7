"""Cold start: who and what is first seen after the cut gets a vector by fold-in, and is measured on what comes later.

The model and everybody's vectors are as of the cut. Newcomers are those known at a later moment and not at the cut;
they are folded in by the features and the few edges that they have by then. Labels are of after that moment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.graph import INTERACTS, SOCIAL
from recsys.models.backbone import Embeddings
from recsys.models.fold_in import NewPlaces, NewUsers, fold_in_places, fold_in_users
from recsys.models.model import RecModel
from recsys.models.sparse import Relation
from recsys.training.baselines import Baseline
from recsys.training.evaluation import Evaluation, embed, evaluate
from recsys.training.inputs import Prepared


@dataclass(frozen=True)
class Newcomers:
    """Rows of the later snapshot.

    Attributes:
        user, place: (N,) and (M,) where each node stands in the earlier snapshot, -1: it is new.
    """

    user: Tensor
    place: Tensor

    @classmethod
    def between(cls, before: Prepared, after: Prepared) -> "Newcomers":
        """Compare ids.

        Raises:
            DataError: a node of the earlier snapshot is not in the later one.
        """
        rows = {}
        for kind in ("user", "place"):
            old, new = (one.snapshot.data[kind][f"{kind}_id"].numpy() for one in (before, after))
            if gone := np.setdiff1d(old, new).tolist():
                raise DataError(f"{kind} {gone[0]} was known at {before.snapshot.as_of} and is not any more")
            at = np.searchsorted(old, new).clip(max=max(len(old) - 1, 0))
            rows[kind] = torch.from_numpy(np.where(old[at] == new, at, -1))
        return cls(rows["user"], rows["place"])


class Nearest:
    """Places by the vectors alone."""

    def __init__(self, name: str, embeddings: Embeddings) -> None:
        self.name = name
        self._embeddings = embeddings

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """See `Scores`."""
        return self._embeddings.user[users] @ self._embeddings.place[places].t()


@torch.no_grad()
def folded(model: RecModel, before: Prepared, after: Prepared, new: Newcomers, *, edges: bool = True) -> Embeddings:
    """Vectors of the later snapshot's nodes: as of the earlier one, newcomers folded in.

    Edges between two newcomers are not heard: neither has states of its own yet.

    Args:
        model: in eval mode.
        before, after: the snapshots. new: who is new.
        edges: whether newcomers are folded in with their edges; else by their features alone.
    """
    backbone, graph, data = model.backbone, after.graph, after.snapshot.data
    states = backbone.states(before.graph)
    place_vectors, (user_vectors, people_vectors) = (
        backbone.place_vectors(states.place),
        backbone.user_vectors(states.user),
    )
    cold_user, cold_place = (new.user < 0).nonzero()[:, 0], (new.place < 0).nonzero()[:, 0]
    user, place = data[INTERACTS].edge_index
    pairs = (new.place[place], user, graph.pair_features)  # known places → later users
    visits = (new.user[user], place, graph.pair_features)
    ties = (new.user[data[SOCIAL].edge_index[0]], data[SOCIAL].edge_index[1], graph.tie_features)
    n_users, n_places = len(before.users.city), len(before.places.city)
    told, told_features = _edges(pairs, cold_user, n_places, edges)
    met, met_features = _edges(ties, cold_user, n_users, edges)
    came, came_features = _edges(visits, cold_place, n_users, edges)
    user_x, areas = graph.user_x[cold_user], graph.area_ids[cold_user]
    found = fold_in_users(backbone, states, NewUsers(user_x, areas, told, told_features, met, met_features))
    return Embeddings(
        user=_placed(user_vectors, new.user, cold_user, found[0]),
        people=_placed(people_vectors, new.user, cold_user, found[1]),
        place=_placed(
            place_vectors,
            new.place,
            cold_place,
            fold_in_places(backbone, states, NewPlaces(graph.place_x[cold_place], came, came_features)),
        ),
    )


def _edges(told: tuple[Tensor, Tensor, Tensor], cold: Tensor, n_source: int, wanted: bool) -> tuple[Relation, Tensor]:
    """Edges from known nodes to cold ones, these numbered in their order, and their features."""
    source, target, features = told
    at = torch.searchsorted(cold, target).clamp(max=max(len(cold) - 1, 0))
    keep = (source >= 0) & (cold[at] == target) if wanted and len(cold) else torch.zeros_like(source, dtype=torch.bool)
    index = torch.stack([source[keep], at[keep]])
    return Relation.from_edges(index, n_source, len(cold)), features[:, keep].contiguous()


def _placed(known: Tensor, row: Tensor, cold: Tensor, found: Tensor) -> Tensor:
    out = known[row.clamp(min=0)]
    out[cold] = found
    return out


def measure_cold(
    model: RecModel,
    before: Prepared,
    after: Prepared,
    *,
    beside: Callable[[Prepared], Sequence[Baseline]] = lambda _: (),
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Cold users: all that they went to. Cold places: whoever went there, to these alone; the full catalogue stands.

    Args:
        model: trained on nothing after `before`'s moment.
        before: as of the cut. after: as of a later moment, with labels from then on.
        beside: further methods, made from the later snapshot.
        seed: of the random baseline, ties and the bootstrap.

    Returns:
        "users" and "places", those that there are labels of. "model" is the whole answer by folded vectors; beside it
        the vectors alone: by features, folded in, and by a pass over the whole later graph.
    """
    new = Newcomers.between(before, after)
    vectors = folded(model, before, after, new)
    alone: list[Baseline] = [
        Nearest("vectors, features only", folded(model, before, after, new, edges=False)),
        Nearest("vectors, folded in", vectors),
        Nearest("vectors, whole graph", embed(model, after)),
    ]
    found = {}
    for name, mine in (("users", new.user[after.user] < 0), ("places", new.place[after.place] < 0)):
        asked = after.only(mine)
        result = evaluate(model, asked, embeddings=vectors, people=False, beside=[*alone, *beside(asked)], seed=seed)
        if result.users:
            found[name] = result
    return found
