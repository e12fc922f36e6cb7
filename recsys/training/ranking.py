"""The place head learns on frozen vectors, from lists that are made once: a step costs a hundredth of a graph's pass.

The vectors of a window's lists are those of before its labels were learned, as a request's are: a head that reads
vectors fitted to its own labels trusts them too much (docs/model.md). Everybody has two lists in a window, of all
places and of those where they never were, as both are asked for. The head begins with what the sources say and the
online counters, by which alone what happens now reaches the next answer; these go, and the cosine comes, only where the
validation window clearly says so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recsys.constants import SLOT_NOT_SAID
from recsys.errors import DataError
from recsys.models.heads import PlaceHead
from recsys.models.losses import list_loss
from recsys.models.model import RecModel
from recsys.training.evaluation import Floats, ranking_metrics
from recsys.training.inputs import Prepared
from recsys.training.lists import ListBatch, Lists, draw_batch
from recsys.training.sampling import step_generator, step_seed

_BLOCK = 64  # lists measured at once
_CLEAR = 2.0  # standard errors of a gain over the validation window's users: what gains less may do so by chance


@dataclass(frozen=True)
class RankConfig:
    """How the place head is trained.

    Attributes:
        epochs: rounds through all lists, at most; the best on the validation window is kept.
        patience: so many rounds without a better one are the last.
        candidates: of a list, from the sources, as many as serving asks for.
        length: how many of them a step looks at.
        lists: of a window and kind, at most.
        batch: lists a step.
        learning_rate: peak of a rise over a tenth of the steps and a cosine to zero.
        weight_decay: AdamW's.
        slot_dropout: probability that the slot is not said.
        category_rate: probability that the positive's categories are said.
    """

    epochs: int = 7
    patience: int = 4
    candidates: int = 200
    length: int = 64
    lists: int = 3072
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    slot_dropout: float = 0.75
    category_rate: float = 0.1


@dataclass(frozen=True)
class Window:
    """A window's lists of both kinds, where there are any.

    Attributes:
        every: of all places. fresh: of those where the user never was.
    """

    every: Lists | None
    fresh: Lists | None

    @property
    def kinds(self) -> list[Lists]:
        """Those that there are."""
        return [lists for lists in (self.every, self.fresh) if lists is not None]

    def learning(self, prepared: Prepared) -> "Window":
        """The same lists, see `Lists.learning`."""
        every, fresh = (lists and lists.learning(prepared) for lists in (self.every, self.fresh))
        return Window(every, fresh)


@dataclass(frozen=True)
class RankProgress:
    """After each epoch: mean loss, and NDCG@10 on the validation window with revisits and without.

    Attributes:
        reads: what the head reads, in words.
        epoch, epochs: how far it is; epochs count from 0.
    """

    reads: str
    epoch: int
    epochs: int
    loss: float
    ndcg: float
    ndcg_new: float


def fit_head(
    model: RecModel,
    windows: Sequence[Window],
    valid: Window | None,
    config: RankConfig,
    *,
    seed: int,
    on_progress: Callable[[RankProgress], None] = lambda _: None,
) -> list[RankProgress]:
    """Train the place head and its context by lists; what it reads changes by what helps, the best epoch stays.

    Args:
        model: its heads are trained, its backbone is not looked at.
        windows: to learn from.
        valid: decides which epoch and what is read, by the sum of both NDCG@10; None: the last epoch, of sources and
            counters.
        config: how.
        seed: of everything random.
        on_progress: called after every epoch.

    Returns:
        An entry an epoch; those of what the head reads in the end are the ones to trust.

    Raises:
        DataError: no window has a positive that a source names, or the loss is not finite.
    """
    learned = [lists for window in windows for lists in window.kinds if bool(lists.liked.any())]
    if not learned:
        raise DataError("no source names a place that somebody went to: nothing to rank")
    _standardize(model, windows[-1])
    untrained = _state(model)
    history: list[RankProgress] = []
    best = untrained
    uses = {"counters"}
    reached: list[Floats] = []
    for change in (set[str](), *({part} for part in PlaceHead.MAY_USE)):
        tried = uses ^ change
        model.heads.load_state_dict(untrained)
        model.heads.place.use(tried)
        found, ndcg = _fit(model, learned, valid, config, seed, history, on_progress)
        if valid is None or not reached or clearly_better(valid, ndcg, reached):
            uses, best, reached = tried, found, ndcg
        if valid is None:
            break
    model.heads.load_state_dict(best)
    return history


def clearly_better(valid: Window, ndcg: Sequence[Floats], before: Sequence[Floats]) -> bool:
    """Whether the sum of both kinds' mean NDCG@10 has grown by more than chance makes it, over users.

    Args:
        valid: the lists measured on. ndcg, before: of each kind, by list, as `measure_lists` gives them.
    """
    # what each user adds to the sum, by both lists together: a user's two lists are no two witnesses
    gain = np.zeros(len(valid.kinds[0].prepared.users.city))
    for lists, now, then in zip(valid.kinds, ndcg, before, strict=True):
        np.add.at(gain, lists.user.numpy(), (now - then) / len(now))
    return bool(gain.sum() > _CLEAR * math.sqrt((gain**2).sum()))


def refit_head(
    model: RecModel, windows: Sequence[Window], valid: Window, config: RankConfig, *, epochs: int, seed: int
) -> None:
    """Train what was chosen anew for the chosen number of epochs, with the validation window too: the latest labels.

    The head begins at nothing; the encoder of its context goes on from what it has learned.

    Args:
        model, windows, config, seed: as for `fit_head`, with what is known by the end of `valid`.
        valid: what decided; nothing may be measured on it any more.
        epochs: what it decided.
    """
    learned = [lists for window in (*windows, valid) for lists in window.kinds if bool(lists.liked.any())]
    uses = model.heads.place.uses.clone()
    model.heads.place.load_state_dict(_fresh(model, seed))
    model.heads.place.uses.copy_(uses)
    _standardize(model, valid)
    best, _ = _fit(model, learned, None, replace(config, epochs=epochs), seed, [], lambda _: None)
    model.heads.load_state_dict(best)


def _fresh(model: RecModel, seed: int) -> dict[str, Tensor]:
    """A place head that has learned nothing."""
    torch.manual_seed(seed)
    return type(model.heads.place)(model.config).state_dict()


def _fit(
    model: RecModel,
    learned: Sequence[Lists],
    valid: Window | None,
    config: RankConfig,
    seed: int,
    history: list[RankProgress],
    on_progress: Callable[[RankProgress], None],
) -> tuple[dict[str, Tensor], list[Floats]]:
    """The best epoch's weights and its NDCG@10 by list, of each kind that there is."""
    parameters = [*model.heads.place.parameters(), *model.heads.place_context.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * sum(math.ceil(len(_liked(lists)) / config.batch) for lists in learned)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(steps, 20), pct_start=0.1
    )
    best, best_epoch, reached = _state(model), 0, -math.inf
    figures: list[Floats] = []
    for epoch in range(config.epochs):
        if epoch - best_epoch > config.patience:
            break
        torch.manual_seed(step_seed(seed, epoch, 0))  # dropout
        generator = step_generator(seed + 1, epoch, 0)
        model.heads.train()
        losses = [
            _step(model, optimizer, schedule, lists, chosen, anchor, config, generator)
            for lists, chosen, anchor in _batches(learned, config.batch, generator)
        ]
        model.heads.eval()
        both = (None, None) if valid is None else (valid.every, valid.fresh)
        found = [None if lists is None else measure_lists(model, lists) for lists in both]
        ndcg = [0.0 if one is None else float(one.mean()) for one in found]
        if valid is None or sum(ndcg) > reached:
            best, best_epoch, reached = _state(model), epoch, sum(ndcg)
            figures = [one for one in found if one is not None]
        history.append(RankProgress(model.heads.place.reads, epoch, config.epochs, float(np.mean(losses)), *ndcg))
        on_progress(history[-1])
    return best, figures


def _batches(learned: Sequence[Lists], size: int, generator: torch.Generator) -> list[tuple[Lists, Tensor, Tensor]]:
    """All lists with a positive once, in batches of one window and kind each, the batches in a random order."""
    out = []
    for lists in learned:
        anchors, some = lists.anchors(generator), _liked(lists)
        order = some[torch.randperm(len(some), generator=generator)]
        out += [(lists, chosen, anchors[chosen]) for chosen in torch.split(order, size)]
    return [out[i] for i in torch.randperm(len(out), generator=generator).tolist()]


def _liked(lists: Lists) -> Tensor:
    """Numbers of the lists that hold a positive: others have nothing to teach."""
    return lists.liked.any(dim=1).nonzero()[:, 0]


def _step(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    lists: Lists,
    chosen: Tensor,
    anchor: Tensor,
    config: RankConfig,
    generator: torch.Generator,
) -> float:
    batch = draw_batch(
        lists, chosen, anchor, length=config.length, slot_dropout=config.slot_dropout,
        category_rate=config.category_rate, generator=generator,
    )  # fmt: skip
    logits = _logits(model, lists, batch)
    members = len(logits)
    # each member's own loss, all in one step
    loss = list_loss(logits.flatten(0, 1), batch.positive.repeat(members, 1), batch.log_weight.repeat(members, 1))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DataError(f"the loss of the place head is not finite on {lists.prepared.snapshot.as_of:%Y-%m-%d}")
    optimizer.zero_grad(set_to_none=True)
    (loss * members).backward()  # type: ignore[no-untyped-call]  # their sum: to each member as if it were alone
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], math.sqrt(members))
    optimizer.step()
    schedule.step()
    return value


def _logits(model: RecModel, lists: Lists, batch: ListBatch) -> Tensor:
    """(K, B, L), of each member of the head."""
    context = model.heads.place_context(batch.city, batch.slot, batch.categories)
    vectors = lists.embeddings
    out: Tensor = model.heads.place.members(
        vectors.user[batch.user][:, None], vectors.place[batch.place], context[:, None], batch.inputs
    )
    return out


@torch.no_grad()
def measure_lists(model: RecModel, lists: Lists) -> Floats:
    """(L,) NDCG@10 of the head over lists, without a context."""
    found = []
    for at in torch.split(torch.arange(len(lists.user)), _BLOCK):
        batch = ListBatch(
            lists.user[at], lists.place[at], lists.inputs[at].float(), lists.liked[at], lists.inputs.new_zeros(0),
            lists.city[at], torch.full_like(at, SLOT_NOT_SAID), torch.zeros(len(at), model.config.n_categories),
        )  # fmt: skip
        scores = _logits(model, lists, batch).mean(dim=0).masked_fill(~lists.there[at], -torch.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)
        found.append(ranking_metrics(lists.liked[at].gather(1, order).numpy(), lists.targets[at].numpy(), 10)[1])
    out: Floats = np.concatenate(found)
    return out


def _standardize(model: RecModel, window: Window) -> None:
    """The head's inputs to mean 0 and deviation 1, as a window's lists of both kinds hold them."""
    rows = []
    for lists in window.kinds:
        step = max(1, len(lists.inputs) // 256)
        rows.append(lists.inputs[::step][lists.there[::step]].float())
    model.heads.place.shallow.standardize.fit(torch.cat(rows))


def _state(model: RecModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.heads.state_dict().items()}
