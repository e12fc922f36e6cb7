"""The losses of one step of the graph: retrieval in the embedding space, people by their head."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.models.backbone import Embeddings
from recsys.models.losses import LossWeights, binary_loss, bpr_loss, sampled_softmax
from recsys.models.model import RecModel
from recsys.models.share import Share
from recsys.training.inputs import CityCatalogue, Prepared
from recsys.training.processes import ALONE, Processes
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
    """Rows by an index of any shape, on any device; on a CPU the gradient is a sequential index_add, ever the same."""
    return table.index_select(0, index.reshape(-1).to(table.device)).reshape(*index.shape, table.shape[1])


def in_city_softmax(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    catalogue: CityCatalogue,
    temperature: Tensor,
    max_candidates: int,
    generator: torch.Generator,
    share: Share,
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
        share: the rows of the batch to compute.

    Returns:
        Scalar, what the share adds to the mean over the batch.
    """
    city = catalogue.city[target]
    total = query.new_zeros(())
    for c in torch.unique(city).tolist():
        members = catalogue.of(c)
        exact = len(members) <= max_candidates
        # drawn for every city of the whole batch: whatever their share, processes draw the same
        drawn = members if exact else members[torch.randint(len(members), (max_candidates,), generator=generator)]
        here = share.among((city == c).nonzero()[:, 0])
        if len(here) == 0:
            continue
        u = rows(query, here) / temperature  # not the scores: they are the largest tensor of a step
        scores = u @ rows(items, drawn).t()
        if exact:
            loss = F.cross_entropy(scores, catalogue.position[target[here]].to(scores.device))
        else:
            positive = (u * rows(items, target[here])).sum(dim=1)
            scores.masked_fill_((drawn[None] == target[here][:, None]).to(scores.device), -torch.inf)
            # each node but the positive is expected max_candidates / len(members) times
            log_q = scores.new_full((max_candidates,), max_candidates / len(members)).log()
            loss = sampled_softmax(positive, scores, log_q)
        total = total + loss * len(here)
    return total / max(len(target), 1)


def retrieval_loss(
    model: RecModel,
    embeddings: Embeddings,
    prepared: Prepared,
    config: StepConfig,
    g: torch.Generator,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """`retrieval`, the vectors' own loss over places; empty when the window has no positive.

    Like the losses of people: what the process's share of the rows adds to the batch's.
    """
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
        processes.share(len(chosen)),
    )
    return {"retrieval": loss}


def score_pairs(
    model: RecModel, embeddings: Embeddings, prepared: Prepared, batch: FriendBatch, peer: Tensor, share: Share
) -> tuple[Tensor, Tensor]:
    """Compatibility and attendance logits of a share of `batch.user` with `peer`, in the batch's context."""
    device = embeddings.people.device
    user, peer, place = share.of(batch.user), share.of(peer), share.of(batch.place)
    target = rows(embeddings.place, place.clamp(min=0)) * (place >= 0).to(device)[:, None]
    city, slot, tags = prepared.users.city[peer], share.of(batch.slot), share.of(batch.tags)
    context = model.heads.friend_context(city.to(device), slot.to(device), target, tags.to(device))
    online = prepared.snapshot.people_features(user, peer).to(device)
    compat, attend = model.heads.friend.pairs(
        rows(embeddings.people, user), rows(embeddings.people, peer), context, online, share
    )
    return compat, attend


def people_losses(
    model: RecModel,
    embeddings: Embeddings,
    prepared: Prepared,
    config: StepConfig,
    g: torch.Generator,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """`friend`, `attend`, `people` and `companion`, those that the window has labels for."""
    parts: dict[str, Tensor] = {}
    if len(prepared.snapshot.friends.user_u):
        batch = draw_friends(prepared, config.friends, config.friend_context_dropout, g)
        share = processes.share(len(batch.user))
        compat, attend = score_pairs(model, embeddings, prepared, batch, batch.peer, share)
        matched, came = (share.of(labels).to(compat.device) for labels in (batch.compat, batch.attend))
        parts["friend"] = share.weight * binary_loss(compat, matched)
        parts["attend"] = share.weight * binary_loss(attend, came)
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
                processes.share(int(match.sum())),
            )
    if len(prepared.snapshot.companions.user_u):
        batch, other = draw_companions(prepared, config.companions, config.friend_context_dropout, g)
        share = processes.share(len(batch.user))
        _, came = score_pairs(model, embeddings, prepared, batch, batch.peer, share)
        _, stranger = score_pairs(model, embeddings, prepared, batch, other, share)
        apart = ((other != batch.peer) & (other != batch.user)).float()
        mine = share.of(apart)
        # each pair weighs the same, or nothing: a share counts by what weighs in it
        weight = float(mine.sum().clamp(min=1.0) / apart.sum().clamp(min=1.0))
        parts["companion"] = weight * bpr_loss(came, stranger, mine.to(came.device))
    return parts
