"""The losses of one step of the graph: retrieval in the embedding space, people by their head."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.models.backbone import Embeddings
from recsys.models.losses import LossWeights, binary_loss, bpr_loss, sampled_softmax
from recsys.models.model import RecModel
from recsys.training.inputs import CityCatalogue, Prepared
from recsys.training.sampling import FriendBatch, draw_companions, draw_friends, draw_positives


@dataclass(frozen=True)
class StepConfig:
    """What a step draws.

    Attributes:
        positives: supervised positives of the retrieval loss; the graph's pass costs the same for one or thousands.
        friends, companions: labelled and accompanying pairs.
        max_candidates: up to this many members of a city, its whole catalogue stands in the softmax; beyond, a sample.
        friend_context_dropout: probability that a part of the context is not said.
        weights: of the losses.
    """

    positives: int = 6144
    friends: int = 4096
    companions: int = 1024
    max_candidates: int = 4096
    friend_context_dropout: float = 0.6
    weights: LossWeights = field(default_factory=LossWeights)


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows by an index of any shape; the gradient is a sequential index_add, the same on every run."""
    return table.index_select(0, index.reshape(-1)).reshape(*index.shape, table.shape[1])


def in_city_softmax(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    catalogue: CityCatalogue,
    temperature: Tensor,
    max_candidates: int,
    generator: torch.Generator,
) -> Tensor:
    """Softmax of each query's target among the nodes of the target's city; candidates are shared by the city.

    Exact where a city has up to `max_candidates` nodes; beyond, uniform draws with replacement, log-Q corrected.

    Args:
        query: (B, D) unit vectors.
        items: (n, D) unit vectors of all nodes.
        target: (B,) nodes.
        catalogue: nodes by city.
        temperature: scalar.
        max_candidates: see above.
        generator: source of randomness.

    Returns:
        Scalar, the mean over the batch.
    """
    city = catalogue.city[target]
    total = query.new_zeros(())
    for c in torch.unique(city).tolist():
        here = (city == c).nonzero()[:, 0]
        members = catalogue.of(c)
        u = rows(query, here)
        if len(members) <= max_candidates:
            scores = u @ rows(items, members).t() / temperature
            loss = F.cross_entropy(scores, catalogue.position[target[here]])
        else:
            drawn = members[torch.randint(len(members), (max_candidates,), generator=generator)]
            scores = u @ rows(items, drawn).t() / temperature
            positive = (u * rows(items, target[here])).sum(dim=1) / temperature
            scores = scores.masked_fill(drawn[None] == target[here][:, None], -torch.inf)
            # each node but the positive is expected max_candidates / len(members) times
            log_q = torch.full((max_candidates,), max_candidates / len(members)).log()
            loss = sampled_softmax(positive, scores, log_q)
        total = total + loss * len(here)
    return total / max(len(target), 1)


def retrieval_loss(
    model: RecModel, embeddings: Embeddings, prepared: Prepared, config: StepConfig, g: torch.Generator
) -> dict[str, Tensor]:
    """`retrieval`, the vectors' own loss over places; empty when the window has no positive."""
    chosen = draw_positives(prepared, config.positives, g)
    if len(chosen) == 0:
        return {}
    loss = in_city_softmax(
        rows(embeddings.user, prepared.user[chosen]),
        embeddings.place,
        prepared.place[chosen],
        prepared.places,
        model.place_temperature(),
        config.max_candidates,
        g,
    )
    return {"retrieval": loss}


def score_pairs(
    model: RecModel, embeddings: Embeddings, prepared: Prepared, batch: FriendBatch, peer: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) compatibility and attendance logits of `batch.user` with `peer`, in the batch's context."""
    target = rows(embeddings.place, batch.place.clamp(min=0)) * (batch.place >= 0)[:, None]
    context = model.heads.friend_context(prepared.users.city[peer], batch.slot, target, batch.tags)
    online = prepared.snapshot.people_features(batch.user, peer)
    compat, attend = model.heads.friend.pairs(
        rows(embeddings.people, batch.user), rows(embeddings.people, peer), context, online
    )
    return compat, attend


def people_losses(
    model: RecModel, embeddings: Embeddings, prepared: Prepared, config: StepConfig, g: torch.Generator
) -> dict[str, Tensor]:
    """`friend`, `attend`, `people` and `companion`, those that the window has labels for."""
    parts: dict[str, Tensor] = {}
    if len(prepared.snapshot.friends.user_u):
        batch = draw_friends(prepared, config.friends, config.friend_context_dropout, g)
        compat, attend = score_pairs(model, embeddings, prepared, batch, batch.peer)
        parts["friend"], parts["attend"] = binary_loss(compat, batch.compat), binary_loss(attend, batch.attend)
        match = batch.compat > 0.5
        if bool(match.any()):
            parts["people"] = in_city_softmax(
                rows(embeddings.people, batch.user[match]),
                embeddings.people,
                batch.peer[match],
                prepared.users,
                model.people_temperature(),
                config.max_candidates,
                g,
            )
    if len(prepared.snapshot.companions.user_u):
        batch, other = draw_companions(prepared, config.companions, config.friend_context_dropout, g)
        _, came = score_pairs(model, embeddings, prepared, batch, batch.peer)
        _, stranger = score_pairs(model, embeddings, prepared, batch, other)
        apart = ((other != batch.peer) & (other != batch.user)).float()
        parts["companion"] = bpr_loss(came, stranger, apart)
    return parts
