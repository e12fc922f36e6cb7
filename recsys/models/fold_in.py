"""Vectors of who and what a graph did not hold: the encoders' output, then the layers over a newcomer's few edges.

Everybody else is frozen: a newcomer hears its neighbours as every layer left them and tells them nothing, so nobody
else's vector changes and nothing is trained. For a node of the graph with all its edges the result is its own vector
(inductive inference of GraphSAGE; Hamilton, Ying, Leskovec 2017).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from recsys.models.backbone import Backbone, Layer, States
from recsys.models.sparse import Relation


@dataclass(frozen=True)
class NewUsers:
    """Users to fold in; any may have no edge.

    Attributes:
        x: (n, 148). area_ids: (n, 5) int64, -1 for none.
        pairs: known places → these users. pair_features: (14, E).
        ties: known users → these users. tie_features: (3, T).
    """

    x: Tensor
    area_ids: Tensor
    pairs: Relation
    pair_features: Tensor
    ties: Relation
    tie_features: Tensor


@dataclass(frozen=True)
class NewPlaces:
    """Places to fold in; any may have no edge: x (n, 114), pairs known users → these places, pair_features (14, E)."""

    x: Tensor
    pairs: Relation
    pair_features: Tensor


@torch.no_grad()
def fold_in_users(backbone: Backbone, known: States, new: NewUsers) -> tuple[Tensor, Tensor]:
    """Unit vectors of new users.

    Args:
        backbone: in eval mode.
        known: of the graph that they are new to.
        new: the users, with their edges to known nodes.

    Returns:
        (n, D) that find places, (n, D) that find people.
    """
    states = [backbone.users(new.x, new.area_ids)]
    from_places, from_friends = backbone.pair_gates(new.pair_features), backbone.tie_gates(new.tie_features)
    for i, layer in enumerate(cast(Iterable[Layer], backbone.layers)):
        places = (new.pairs, from_places[2 * i + 1], known.place[i])
        states.append(layer.next_user(states[-1], places, (new.ties, from_friends[i], known.user[i])))
    return backbone.user_vectors(states)


@torch.no_grad()
def fold_in_places(backbone: Backbone, known: States, new: NewPlaces) -> Tensor:
    """(n, D) unit vectors of new places; see `fold_in_users`."""
    states = [backbone.places(new.x)]
    gates = backbone.pair_gates(new.pair_features)
    for i, layer in enumerate(cast(Iterable[Layer], backbone.layers)):
        states.append(layer.next_place(states[-1], (new.pairs, gates[2 * i], known.user[i])))
    return backbone.place_vectors(states)
