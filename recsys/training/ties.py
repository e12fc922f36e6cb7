"""The friend head learns from friendships themselves: a share of them is hidden, and is to be found again.

A friendship that is in the graph tells about itself by every path that goes through it. So some are taken out of the
graph, what the sources say is computed without them, and the head learns to put them above others; a few times, with
others hidden each time. Vectors have no part in it, so nothing that was hidden comes back through message passing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import DataError
from recsys.models.backbone import Embeddings
from recsys.models.heads import FriendHead, TieScorer
from recsys.models.losses import list_loss
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.sources import PeopleSources
from recsys.sources.rows import row_of
from recsys.training.evaluation import auc, pair_scores
from recsys.training.inputs import Prepared
from recsys.training.sampling import step_generator, step_seed

Ints = npt.NDArray[np.int64]
_BLOCK: Final = 128  # users at once
_HARD: Final = (("walk", 30), ("adamic_adar", 15), ("co_visits", 15), ("friends_places", 15))  # the likeliest by each
_WORTH: Final = 0.02  # so much more AUC, and the labels' network decides; a window's few friendships tell no less apart
_STEPS: Final = 100  # of a fit of two numbers
_LEAST: Final = 1e-3  # slope


@dataclass(frozen=True)
class TieConfig:
    """How the friend head learns from friendships.

    Attributes:
        folds: how often some are hidden. share: of all, how many each time.
        drawn: other people of a list, by chance, who stand for all others.
        lists: of a fold, at most.
        epochs: rounds through all lists.
        batch: lists a step.
        learning_rate: peak of a rise over a seventh of the steps and a cosine to zero.
        weight_decay: AdamW's.
    """

    folds: int = 3
    share: float = 0.15
    drawn: int = 100
    lists: int = 4096
    epochs: int = 12
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3


def hidden_ties(sources: PeopleSources, share: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """A share of the friendships by chance, such that everyone keeps one: (H,) and (H,) ends, u < v."""
    friends = sources.friends
    row, column = row_of(friends), friends.indices.astype(np.int64)
    u, v = row[row < column], column[row < column]
    left, budget = np.diff(friends.indptr), round(share * len(u))
    hidden: list[int] = []
    for i in rng.permutation(len(u)).tolist():
        if len(hidden) == budget:
            break
        if left[u[i]] > 1 and left[v[i]] > 1:
            left[u[i]] -= 1
            left[v[i]] -= 1
            hidden.append(i)
    at = np.array(sorted(hidden), dtype=np.int64)
    return u[at], v[at]


@dataclass(frozen=True)
class TieLists:
    """Candidates of L users with a hidden friend.

    Attributes:
        signals: (L, n, len(PEOPLE_SIGNALS)).
        hidden: (L, n) bool, the friends to be found.
        log_weight: (L, n), how many people each of the others stands for; -inf for nobody.
    """

    signals: Tensor
    hidden: Tensor
    log_weight: Tensor


def tie_lists(sources: PeopleSources, config: TieConfig, rng: np.random.Generator) -> TieLists | None:
    """Hide friendships once and list the people among whom they are to be found; None where nothing can be hidden."""
    u, v = hidden_ties(sources, config.share, rng)
    known = sources.without(u, v)
    ends = np.concatenate([u, v]), np.concatenate([v, u])
    home = sources.home
    mine = (home[ends[0]] == home[ends[1]]) & (home[ends[0]] >= 0)
    n = len(home)
    wanted = np.sort(ends[0][mine] * n + ends[1][mine])
    users = np.unique(wanted // n)
    users = np.sort(rng.permutation(users)[: config.lists])
    parts = []
    for city in np.unique(home[users]).tolist():
        everyone = users[home[users] == city]
        for start in range(0, len(everyone), _BLOCK):
            parts.append(_block(sources, known, everyone[start : start + _BLOCK], city, wanted, config, rng))
    if not parts:
        return None
    length = max(part.hidden.shape[1] for part in parts)
    padded = [
        (
            F.pad(part.signals, (0, 0, 0, length - part.hidden.shape[1])),
            F.pad(part.hidden, (0, length - part.hidden.shape[1])),
            F.pad(part.log_weight, (0, length - part.hidden.shape[1]), value=-math.inf),
        )
        for part in parts
    ]
    return TieLists(*(torch.cat(column) for column in zip(*padded, strict=True)))


def _block(
    sources: PeopleSources,
    known: PeopleSources,
    users: Ints,
    city: int,
    wanted: Ints,
    config: TieConfig,
    rng: np.random.Generator,
) -> TieLists:
    """Lists of (B,) users of a city: hidden friends, the likeliest of the others, and some who stand for all others."""
    members, n = known.members(city), len(known.home)
    said = known.ask(users, city)
    rows = np.arange(len(users))[:, None]
    friend = np.isin(users[:, None] * n + members, wanted)
    free = sources.friends[users][:, members].toarray() == 0
    free[rows[:, 0], said.itself] = False
    weight = np.where(friend, 0.0, -np.inf).astype(np.float32)
    for name, k in _HARD:
        k = min(k, len(members))
        top = np.argpartition(-np.where(free, said.named[name], -np.inf), k - 1, axis=1)[:, :k]
        weight[rows, top] = np.where(free[rows, top], 0.0, weight[rows, top])
    free &= ~np.isfinite(weight)
    drawn = min(config.drawn, len(members))
    some = np.argpartition(-np.where(free, rng.random(free.shape), -1.0), drawn - 1, axis=1)[:, :drawn]
    there = free[rows, some]
    each = np.log(np.maximum(free.sum(axis=1), 1) / np.maximum(there.sum(axis=1), 1)).astype(np.float32)[:, None]
    weight[rows, some] = np.where(there, each, weight[rows, some])
    length = int(np.isfinite(weight).sum(axis=1).max())
    at = np.argsort(~np.isfinite(weight), axis=1, kind="stable")[:, :length]
    signals = known.signals(said, at)
    parts = (signals, friend[rows, at], weight[rows, at])
    return TieLists(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def fit_ties(scorer: TieScorer, sources: PeopleSources, config: TieConfig, *, seed: int) -> bool:
    """Learn to put hidden friendships above everybody else, from nothing.

    Args:
        scorer: is trained.
        sources: as of the moment whose friendships teach.
        config: how.
        seed: of everything random.

    Returns:
        Whether there were any to learn from.

    Raises:
        DataError: the loss is not finite.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    found = [tie_lists(sources, config, rng) for _ in range(config.folds)]
    lists = [fold for fold in found if fold is not None]
    if not lists:
        return False
    torch.manual_seed(step_seed(seed, 0, 0))
    for part in (scorer.wide, *scorer.narrow):
        if isinstance(part, torch.nn.Linear):
            part.reset_parameters()
    everyone = torch.cat([fold.signals[fold.log_weight.isfinite()] for fold in lists])
    scorer.standardize.fit(everyone)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * sum(math.ceil(len(fold.hidden) / config.batch) for fold in lists)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(steps, 2), pct_start=0.15
    )
    for epoch in range(config.epochs):
        generator = step_generator(seed, epoch, 0)
        batches = [
            (fold, chosen)
            for fold in lists
            for chosen in torch.split(torch.randperm(len(fold.hidden), generator=generator), config.batch)
        ]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            fold, chosen = batches[i]
            loss = list_loss(scorer(fold.signals[chosen]), fold.hidden[chosen], fold.log_weight[chosen])
            if not bool(loss.detach().isfinite()):
                raise DataError("the loss of the friend head over hidden friendships is not finite")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return True


@dataclass(frozen=True)
class Chosen:
    """What decided how the friend head tells who matches.

    Attributes:
        by_ties: whether it is the score of friendships.
        new_ties: how many friendships the validation window brought between people known at its beginning.
        auc_pairs, auc_ties: how often such a pair is above one that is labelled not to match, by the seed's network and
            by the score; None where there are none of either, or no friendship to learn from.
    """

    by_ties: bool
    new_ties: int
    auc_pairs: float | None
    auc_ties: float | None


def choose_ties(
    model: RecModel, newest: Prepared, valid: Prepared, embeddings: Embeddings, config: TieConfig, *, seed: int
) -> Chosen:
    """Let friendships decide, unless the seed's network foresees those of the validation window better.

    Where nobody who is known becomes friends there is nothing to foresee: ties are then a trait of a pair, known from
    the start, and the labels say what they are worth.

    Args:
        model: its friend head learns from the newest window's friendships and labels, and is set to what is better.
        newest: the last window before `valid`.
        valid: decides.
        embeddings: as of the beginning of `valid`.
        config: how.
        seed: of everything random.
    """
    head = model.heads.friend
    head.by_ties.zero_()
    new, labels = valid.snapshot.new_ties, valid.snapshot.friends
    strangers = labels.compat < 0.5
    u, v = torch.cat([new.user_u, labels.user_u[strangers]]), torch.cat([new.user_v, labels.user_v[strangers]])
    n = len(new.user_u)
    if n in (0, len(u)) or not fit_ties(head.ties, newest.people_sources, config, seed=seed):
        return Chosen(False, n, None, None)
    came = np.arange(len(u)) < n
    by_pairs = auc(pair_scores(Ranker(model.config, model.heads), embeddings, valid, u, v)[0].numpy(), came)
    by_ties = auc(_scores(head, valid, u, v).numpy(), came)
    chosen = by_pairs is not None and by_ties is not None and by_ties > by_pairs - _WORTH
    if chosen:
        calibrate(head, [newest])
    return Chosen(chosen, n, by_pairs, by_ties)


def refit_ties(model: RecModel, windows: Sequence[Prepared], config: TieConfig, *, seed: int) -> None:
    """Learn anew from the last window's friendships, and from the labels of all of them: the latest there are."""
    head = model.heads.friend
    fit_ties(head.ties, windows[-1].people_sources, config, seed=seed)
    calibrate(head, windows)


def calibrate(head: FriendHead, windows: Sequence[Prepared]) -> None:
    """Make probabilities of the score (Platt, "Probabilistic outputs for support vector machines", 1999).

    A line a logit, by logistic regression on the windows' labels, with a weak prior at the score itself; it rises, so
    that the order is the score's.
    """
    friends = [window.snapshot.friends for window in windows]
    score = torch.cat([_scores(head, w, f.user_u, f.user_v) for w, f in zip(windows, friends, strict=True)])
    for row, name in enumerate(("compat", "attend")):
        outcome = torch.cat([getattr(labels, name) for labels in friends])
        head.by_ties[row] = _line(score.double(), outcome.double()).float()


def _line(score: Tensor, outcome: Tensor) -> Tensor:
    """(L,) scores and (L,) outcomes → (2,) slope and offset of the log odds."""
    x = torch.stack([score, torch.ones_like(score)], dim=1)
    prior = x.new_tensor([1.0, 0.0])
    line = prior.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([line], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fits = F.binary_cross_entropy_with_logits(x @ line, outcome, reduction="sum")
        total: Tensor = fits + 0.5 * ((line - prior) ** 2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return line.detach().clamp(min=x.new_tensor([_LEAST, -math.inf]))


@torch.no_grad()
def _scores(head: FriendHead, window: Prepared, user: Tensor, peer: Tensor) -> Tensor:
    """(L,) scores of pairs."""
    out: Tensor = head.ties(torch.from_numpy(window.people_sources.pairs(user.numpy(), peer.numpy())))
    return out
