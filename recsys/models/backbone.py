"""Message passing over social, interacts and rev_interacts edges (seed, section 4.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys.constants import D_EDGE_USER_PLACE, D_EDGE_USER_USER
from recsys.models.config import ModelConfig
from recsys.models.dropout import Dropout
from recsys.models.encoders import NeighborhoodTable, PlaceEncoder, UserEncoder
from recsys.models.sparse import EdgeGates, Relation, aggregate

RECOMPUTE_FROM = 300_000  # nodes; from here on a step keeps what lies between parts only, and makes the rest twice
D_PAIR_FEATURES = D_EDGE_USER_PLACE + 2  # and log count, recency: what the seed's twelve lose


@dataclass(frozen=True)
class GraphInputs:
    """All that the backbone reads of a graph, patterns built.

    Attributes:
        user_x: (N, 148). area_ids: (N, 5) int64. place_x: (M, 114).
        pairs: user → place; its flip carries what places tell users.
        pair_features: (14, E), the twelve attributes, log count and recency; edges last.
        ties: user → user, both directions.
        tie_features: (3, T).
    """

    user_x: Tensor
    area_ids: Tensor
    place_x: Tensor
    pairs: Relation
    pair_features: Tensor
    ties: Relation
    tie_features: Tensor

    def to(self, device: torch.device | str) -> "GraphInputs":
        """The same graph on another device."""
        return GraphInputs(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors: user (N, D) finds places, people (N, D) finds people, place (M, D)."""

    user: Tensor
    people: Tensor
    place: Tensor


@dataclass(frozen=True)
class States:
    """What every layer made of the nodes, the encoders' output first: user L + 1 times (N, D), place (M, D)."""

    user: tuple[Tensor, ...]
    place: tuple[Tensor, ...]


Told = tuple[Relation, Tensor, Tensor]  # edges, (E,) their gates, (S, D) the nodes where they begin


class _Equal(nn.Module):
    """No gates: (D_edge, E) → (n_gates, E) ones."""

    def __init__(self, n_gates: int) -> None:
        super().__init__()
        self.n_gates = n_gates

    def forward(self, features: Tensor) -> Tensor:
        return features.new_ones(self.n_gates, features.shape[1])


def _gates(config: ModelConfig, d_edge: int, n_gates: int) -> nn.Module:
    return EdgeGates(d_edge, n_gates, config.gate_hidden) if config.gate_hidden else _Equal(n_gates)


class Layer(nn.Module):
    """One layer: each node's own vector and its neighbourhoods, each through a linear map, summed.

    h' = h + dropout(norm(relu(W h + Σ_r W_r aggregate_r(h)))). Differs from the seed: one own-vector map a node type
    instead of one a relation (their sum is one map), and the residual from the first layer on.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.how, self.messages = config.aggregation, config.messages
        self.user_self, self.place_self = nn.Linear(d, d), nn.Linear(d, d)
        self.interacts, self.rev_interacts, self.social = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.user_norm, self.place_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, graph: GraphInputs, user: Tensor, place: Tensor, gates: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(N, D) users and (M, D) places after the layer."""
        to_place, to_user, social = gates
        return (
            self.next_user(user, (graph.pairs.flip(), to_user, place), (graph.ties, social, user)),
            self.next_place(place, (graph.pairs, to_place, user)),
        )

    def next_user(self, own: Tensor, from_places: Told, from_friends: Told) -> Tensor:
        """(N, D) users after the layer."""
        told = self.rev_interacts(self._heard("rev_interacts", from_places))
        new = self.user_self(own) + told + self.social(self._heard("social", from_friends))
        out: Tensor = own + self.dropout(self.user_norm(torch.relu(new)))
        return out

    def next_place(self, own: Tensor, from_users: Told) -> Tensor:
        """(M, D) places after the layer."""
        return self.place_after(own, self._heard("interacts", from_users))

    def place_after(self, own: Tensor, heard: Tensor) -> Tensor:
        """(M, D) places after the layer, by what they heard of users: (M, D) normalised sums over `interacts`."""
        new = self.place_self(own) + self.interacts(heard)
        out: Tensor = own + self.dropout(self.place_norm(torch.relu(new)))
        return out

    def _heard(self, name: str, told: Told) -> Tensor:
        relation, gate, x = told
        if name not in self.messages:
            return x.new_zeros(relation.n_target, x.shape[1])
        return aggregate(relation, gate, x, self.how)


def _run_once(part: Callable[..., Any], *inputs: Any) -> Any:
    return part(*inputs)


def _run_twice(part: Callable[..., Any], *inputs: Any) -> Any:
    """Forward without keeping what lies inside, which backward makes again, dropout's draws included."""
    return checkpoint(part, *inputs, use_reentrant=False)


class Backbone(nn.Module):
    """Encoders, layers and the projections to unit vectors.

    The projections read every layer's output side by side (jumping knowledge, Xu et al. 2018), so that near and far
    neighbourhoods weigh as the task wants. People have their own projection (amendment 11).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        neighborhoods = NeighborhoodTable(config)
        self.users = UserEncoder(config, neighborhoods)
        self.places = PlaceEncoder(config, neighborhoods)
        self.pair_gates = _gates(config, D_PAIR_FEATURES, 2 * config.n_layers)
        self.tie_gates = _gates(config, D_EDGE_USER_USER, config.n_layers)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        width = config.d_model * (config.n_layers + 1)
        self.to_user, self.to_people, self.to_place = (nn.Linear(width, config.d_model) for _ in range(3))

    def fit_scales(self, graph: GraphInputs) -> None:
        """Fit the encoders' standardisation on a training graph."""
        self.users.standardize.fit(graph.user_x[:, 2:])
        self.places.standardize.fit(self.places.continuous(graph.place_x))

    def forward(self, graph: GraphInputs) -> Embeddings:
        """One full-graph pass."""
        states = self.states(graph)
        user, people = self.user_vectors(states.user)
        return Embeddings(user=user, people=people, place=self.place_vectors(states.place))

    def user_vectors(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """L + 1 times (N, D) → (N, D) that find places, (N, D) that find people."""
        beside = torch.cat(tuple(states), dim=1)
        return F.normalize(self.to_user(beside), dim=1), F.normalize(self.to_people(beside), dim=1)

    def place_vectors(self, states: Sequence[Tensor]) -> Tensor:
        """L + 1 times (M, D) → (M, D)."""
        return F.normalize(self.to_place(torch.cat(tuple(states), dim=1)), dim=1)

    def states(self, graph: GraphInputs) -> States:
        """Every layer's output; numbers and gradients are the same whether parts are made twice or not."""
        run = _run_twice if len(graph.user_x) + len(graph.place_x) >= RECOMPUTE_FROM else _run_once
        user, place = run(self.users, graph.user_x, graph.area_ids), run(self.places, graph.place_x)
        # unbind, not indexing: its gradient is one stack instead of a zero-filled copy a gate
        pair_gates = run(self.pair_gates, graph.pair_features).unbind(0)
        tie_gates = run(self.tie_gates, graph.tie_features).unbind(0)
        users, places = [user], [place]
        for i, layer in enumerate(self.layers):
            user, place = run(layer, graph, user, place, (pair_gates[2 * i], pair_gates[2 * i + 1], tie_gates[i]))
            users.append(user)
            places.append(place)
        return States(tuple(users), tuple(places))
