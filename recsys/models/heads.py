"""Task heads and the contexts of a request (seed, section 4.4).

Heads broadcast: one user row against a row of candidates costs the user's share of the first layer once. Leading
dimensions of all inputs must broadcast; the last one is the feature.
"""

import math
from collections.abc import Collection
from typing import Final

import torch
from torch import Tensor, nn

from recsys.aggregates import D_ONLINE_PEOPLE, D_ONLINE_PLACE
from recsys.constants import N_TIME_SLOTS
from recsys.models.config import ModelConfig
from recsys.models.dropout import Dropout
from recsys.models.encoders import Standardize
from recsys.models.share import Share
from recsys.sources import PEOPLE_SIGNALS, PLACE_FITS, PLACE_SIGNALS

# what the place head reads beside vectors and context: online counters, how a place fits, what sources say
_D_SOURCES = len(PLACE_FITS) + len(PLACE_SIGNALS)
D_PLACE_INPUT = D_ONLINE_PLACE + _D_SOURCES
D_PEOPLE_INPUT = D_ONLINE_PEOPLE + len(PEOPLE_SIGNALS)  # the same of the friend head
_D_ID = 8  # width of the contexts' own city and slot vectors, as in the seed


class PlaceContext(nn.Module):
    """What a request for places says: city, time slot (or that none was said) and desired categories.

    Shapes:
        city (B,), slot (B,) int64 in 0..6, categories (B, n_categories) multi-hot float → (B, d_context)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.city = nn.Embedding(config.n_cities, _D_ID)
        self.slot = nn.Embedding(N_TIME_SLOTS + 1, _D_ID)  # the last row: SLOT_NOT_SAID
        self.categories = nn.Linear(config.n_categories, config.d_context // 2)
        self.out = nn.Linear(2 * _D_ID + config.d_context // 2, config.d_context)

    def forward(self, city: Tensor, slot: Tensor, categories: Tensor) -> Tensor:
        """See the class."""
        parts = [self.city(city), self.slot(slot), torch.relu(self.categories(categories))]
        out: Tensor = self.out(torch.cat(parts, dim=-1))
        return out


class FriendContext(nn.Module):
    """What a request for people says: city, slot, the place to go to (or none) and the activity's tags.

    Differs from the seed, which passes zeros in training and serving (amendment 13).

    Shapes:
        city (B,), slot (B,) int64; place (B, d_model) unit vectors, zeros for none; tags (B, n_tags) multi-hot float
        → (B, d_context)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.city = nn.Embedding(config.n_cities, _D_ID)
        self.slot = nn.Embedding(N_TIME_SLOTS + 1, _D_ID)
        self.place = nn.Linear(config.d_model + 1, config.d_context // 2)
        self.tags = nn.Linear(config.n_tags, config.d_context // 2)
        self.out = nn.Linear(2 * _D_ID + 2 * (config.d_context // 2), config.d_context)

    def forward(self, city: Tensor, slot: Tensor, place: Tensor, tags: Tensor) -> Tensor:
        """See the class."""
        said = (place != 0).any(dim=-1, keepdim=True).to(place.dtype)
        where = torch.relu(self.place(torch.cat([place * self.scale, said], dim=-1)))
        parts = [self.city(city), self.slot(slot), where, torch.relu(self.tags(tags))]
        out: Tensor = self.out(torch.cat(parts, dim=-1))
        return out


class _Shallow(nn.Module):
    """What both heads read of a pair beside vectors and context: features, standardised, and the cosine last.

    Attributes:
        reads: buffer (d,), 0 for what `ModelConfig.inputs` leaves out; made from the config, not saved.

    Shapes:
        query (..., D), candidate (..., D), features (..., d) → (..., d + 1)
    """

    reads: Tensor

    def __init__(self, config: ModelConfig, **widths: int) -> None:
        super().__init__()
        reads = [torch.full((width,), float(name in config.inputs)) for name, width in widths.items()]
        self.register_buffer("reads", torch.cat(reads), persistent=False)
        self.standardize = Standardize(sum(widths.values()))

    def forward(self, query: Tensor, candidate: Tensor, features: Tensor) -> Tensor:
        """See the class."""
        cosine = (query * candidate).sum(dim=-1, keepdim=True)
        # cosines of a trained retrieval space are small numbers; 10 brings them to the size of the other inputs
        return torch.cat([self.standardize(features) * self.reads, 10.0 * cosine], dim=-1)


class _Trunk(nn.Module):
    """First layer over z_u, z_v, z_u * z_v, |z_u - z_v|, context and what `_Shallow` gives.

    One linear map over the concatenation, kept as one map a part so that each part broadcasts. Unit vectors are
    scaled by sqrt(d): their components are then about 1, as the layer's initialisation expects.
    """

    def __init__(self, config: ModelConfig, d_shallow: int) -> None:
        super().__init__()
        d, hidden = config.d_model, config.head_hidden[0]
        self.scale = math.sqrt(d)
        self.first, self.second, self.product, self.difference = (nn.Linear(d, hidden, bias=i == 0) for i in range(4))
        self.context = nn.Linear(config.d_context, hidden, bias=False)
        self.online = nn.Linear(d_shallow, hidden, bias=False)
        self.after = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU())
        self.dropout = Dropout(config.head_dropout)
        # One map over all inputs would start each at 1 / sqrt(all of them). The vectors' parts do; the few online
        # features and the context start at their own width, or 512 components of the vectors would drown them.
        for part in (self.first, self.second, self.product, self.difference):
            nn.init.uniform_(part.weight, -1 / math.sqrt(4 * d), 1 / math.sqrt(4 * d))

    def forward(
        self, query: Tensor, candidate: Tensor, context: Tensor, shallow: Tensor, share: Share | None = None
    ) -> Tensor:
        u, v = query * self.scale, candidate * self.scale
        if not self.training and u.dim() > 1 and u.shape[-2] == 1 and v.shape[-2] >= v.shape[-1]:
            # one query and many candidates: S v + P (u * v) = (S + P diag(u)) v, a product of matrices less
            hidden = self.first(u) + v @ (self.second.weight + self.product.weight * u).mT
        else:
            hidden = self.first(u) + self.second(v)
            hidden += self.product(u * v)  # in place: these are a head's largest tensors, and no gradient needs a sum
        hidden += self.difference((u - v).abs())
        hidden += self.context(context)
        hidden += self.online(shallow)
        hidden = self.after(hidden)
        if share is not None and self.training:
            return share.dropout(hidden, self.dropout.p)
        out: Tensor = self.dropout(hidden)
        return out


class _Committee(nn.Module):
    """K networks of two hidden layers over the same inputs, each with its own weights, as one batch of products.

    Every layer starts as `nn.Linear` does, and no weight is shared, so K members are K networks.

    Shapes:
        x (..., n) → (K, ...)
    """

    def __init__(self, members: int, n: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for rows, columns in ((n, hidden), (hidden, hidden), (hidden, 1)):
            bound = 1 / math.sqrt(rows)
            self.weights.append(nn.Parameter(torch.empty(members, rows, columns).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, columns).uniform_(-bound, bound)))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows, members = math.prod(x.shape[:-1]), len(self.weights[0])
        out = x.reshape(rows, x.shape[-1]).expand(members, -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, self.dropout(torch.relu(out)) if layer else out, weight)
        return out.view(members, *x.shape[:-1])


class PlaceHead(nn.Module):
    """Relevance of a place for a user in a context, by what sources and counters say and the retrieval cosine.

    A line and a narrow network, side by side (Cheng et al. 2016, "wide and deep"), of which there are as many as the
    committee has members. Each learns for itself, by its own loss, dropout and starting point, and the score is the
    mean of theirs: what one fits by chance, the others do not (Lakshminarayanan et al., "Simple and scalable predictive
    uncertainty estimation using deep ensembles", NIPS 2017). The line starts at the cosine alone, so an untrained head
    ranks as retrieval does.

    Differs from the seed, whose head reads the vectors' products: what they say beyond the cosine never helped where
    labels decide (docs/model.md).

    Attributes:
        MAY_USE: what it can do without: the online counters, the cosine.
        uses: buffer (2,), 1 for those that it reads, else 0.

    Shapes:
        query (..., D), candidate (..., D) unit vectors, context (..., 16), inputs (..., D_PLACE_INPUT) → (...) logits
    """

    MAY_USE: Final = ("counters", "cosine")
    uses: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shallow = _Shallow(config, online=D_ONLINE_PLACE, sources=_D_SOURCES)
        n = D_PLACE_INPUT + 1
        self.narrow = _Committee(config.members, n + config.d_context, config.narrow_hidden, config.narrow_dropout)
        self.wide = nn.Linear(n, config.members, bias=False)
        nn.init.zeros_(self.wide.weight)
        nn.init.ones_(self.wide.weight[:, -1])
        self.register_buffer("uses", torch.ones(len(self.MAY_USE)))

    def use(self, parts: Collection[str]) -> None:
        """Read these of MAY_USE, and no others of them."""
        self.uses.copy_(torch.tensor([float(part in parts) for part in self.MAY_USE]))

    @property
    def reads(self) -> str:
        """What it reads, in words: the sources, and those of MAY_USE that it uses."""
        return " + ".join(
            ("sources", *(part for part, use in zip(self.MAY_USE, self.uses.tolist(), strict=True) if use))
        )

    def forward(self, query: Tensor, candidate: Tensor, context: Tensor, inputs: Tensor) -> Tensor:
        """See the class."""
        return self.members(query, candidate, context, inputs).mean(dim=0)

    def members(self, query: Tensor, candidate: Tensor, context: Tensor, inputs: Tensor) -> Tensor:
        """The logits of each of K members, (K, ...), which learn apart."""
        counters, cosine = self.uses[:, None]
        read = torch.cat([counters.expand(D_ONLINE_PLACE), self.uses.new_ones(_D_SOURCES), cosine])
        shallow = self.shallow(query, candidate, inputs) * read
        said = torch.cat([shallow, context.expand(*shallow.shape[:-1], context.shape[-1])], dim=-1)
        out: Tensor = self.narrow(said) + self.wide(shallow).movedim(-1, 0)
        return out


class TieScorer(nn.Module):
    """Who will become friends, by what the people's sources say: a line and a narrow network, their sum.

    Shapes:
        signals (..., len(PEOPLE_SIGNALS)) → (...) scores that order the peers of one user
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n, narrow = len(PEOPLE_SIGNALS), config.narrow_hidden
        self.standardize = Standardize(n)
        self.wide = nn.Linear(n, 1)
        self.narrow = nn.Sequential(nn.Linear(n, narrow), nn.ReLU(), nn.Linear(narrow, 1))

    def forward(self, signals: Tensor) -> Tensor:
        """See the class."""
        said = self.standardize(signals)
        out: Tensor = self.wide(said) + self.narrow(said)
        return out.squeeze(-1)


class FriendHead(nn.Module):
    """Two logits for a pair of people: do they match, would the invited one come.

    The seed's network reads vectors, context and online features, and learns from labelled pairs. Beside it a narrow
    one learns from friendships themselves. Where it foresees friendships as well, both logits are lines in its
    score, so that it alone decides the order (`training/ties.py`).

    Attributes:
        by_ties: buffer (2, 2): slope and offset of the two logits in the score of `ties`; slopes of 0: not in use.

    Shapes:
        query (..., D), candidate (..., D) unit vectors, context (..., 16), inputs (..., D_PEOPLE_INPUT)
        → (...), (...) logits; where it does not read signals, inputs may be the online features alone
    """

    by_ties: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, last = config.head_hidden
        self.shallow = _Shallow(config, online=D_ONLINE_PEOPLE)
        self.trunk = _Trunk(config, D_ONLINE_PEOPLE + 1)
        self.compat, self.attend = (
            nn.Sequential(nn.Linear(hidden, last), nn.ReLU(), nn.Linear(last, 1)) for _ in range(2)
        )
        self.ties = TieScorer(config)
        self.register_buffer("by_ties", torch.zeros(2, 2))

    @property
    def reads_signals(self) -> bool:
        """Whether the score of friendships decides; else what the sources say of a pair is not looked at."""
        return bool((self.by_ties[:, 0] > 0).all())

    def forward(self, query: Tensor, candidate: Tensor, context: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        if self.reads_signals:
            compat, attend = (self.ties(inputs[..., D_ONLINE_PEOPLE:])[..., None] * self.by_ties[:, 0]
                              + self.by_ties[:, 1]).unbind(-1)  # fmt: skip
            return compat, attend
        return self.pairs(query, candidate, context, inputs[..., :D_ONLINE_PEOPLE])

    def pairs(
        self, query: Tensor, candidate: Tensor, context: Tensor, online: Tensor, share: Share | None = None
    ) -> tuple[Tensor, Tensor]:
        """The seed's network alone; online (..., D_ONLINE_PEOPLE); share: whose rows of a batch these are."""
        hidden = self.trunk(query, candidate, context, self.shallow(query, candidate, online), share)
        return self.compat(hidden).squeeze(-1), self.attend(hidden).squeeze(-1)


class Heads(nn.Module):
    """Both heads with their context encoders: the part of the model that serves."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.place_context, self.place = PlaceContext(config), PlaceHead(config)
        self.friend_context, self.friend = FriendContext(config), FriendHead(config)
