"""Training: vectors first, then what ranks by them.

The vectors learn window by window, in the order of time (`training/vectors.py`). The place head then learns from lists
whose vectors are those of before their window was learned (`training/ranking.py`), the friend head from friendships
(`training/ties.py`). The second stage is short beside the first, and runs in one process, on the CPU.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.graph import Snapshot
from recsys.models.model import RecModel
from recsys.training.config import Progress, TrainConfig
from recsys.training.evaluation import Evaluation, embed, evaluate
from recsys.training.inputs import Prepared
from recsys.training.lists import window_lists
from recsys.training.processes import ALONE, Processes
from recsys.training.ranking import RankProgress, Window, fit_head, refit_head
from recsys.training.sampling import step_generator
from recsys.training.ties import choose_ties, refit_ties
from recsys.training.vectors import Learned, apart, learn


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    Attributes:
        model: with the best epoch's weights, in eval mode.
        config: as given, its model part sized from the data.
        reads: what the head reads, in words: sources, and what of PlaceHead.MAY_USE earned its place.
        best_epoch: of the head, counted from 0.
        best_metric: its validation NDCG@10.
        history: an entry an epoch and stage: mean losses and validation NDCG@10.
        valid: on the validation window, before the head learned from that too.
    """

    model: RecModel
    config: TrainConfig
    reads: str
    best_epoch: int
    best_metric: float
    history: list[dict[str, Any]]
    valid: Evaluation


def fit(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Fitted:
    """Train vectors, then the place head to the best validation NDCG@10, then that again with the validation window.

    Args:
        train: snapshots whose labels supervise; their windows lie before `valid.as_of`.
        valid: the snapshot that decides which epoch and which paths of the head are best.
        config: how.
        checkpoint: file to save to after every epoch and to resume from; None: neither. One of another configuration
            or other data is ignored and replaced.
        on_progress: called after every step.

    Returns:
        The finished model.

    Raises:
        DataError: no snapshot, no positive, ids the model does not know, or values that are not finite.
    """
    return finish(learn(train, valid, config, checkpoint=checkpoint, on_progress=on_progress), on_progress=on_progress)


def finish(
    learned: Learned, *, processes: Processes = ALONE, on_progress: Callable[[Progress], None] = lambda _: None
) -> Fitted:
    """Train what ranks by the vectors, measure it, and train it once more with the validation window.

    Not kept in the checkpoint: it is short, and begins the same after every resume. It is the first process that does
    this; the others have ended, and leave it their threads.
    """
    with apart(dataclasses.replace(learned.config, threads=learned.config.threads * processes.here)):
        return _finish(learned, on_progress)


def _finish(learned: Learned, on_progress: Callable[[Progress], None]) -> Fitted:
    model, config, held_out, newest = learned.model, learned.config, learned.valid, learned.windows[-1]

    def say(p: RankProgress) -> None:
        on_progress(Progress(f"ranking by {p.reads}", p.epoch, p.epochs, 1, 1, {"place": p.loss}, p.ndcg))

    windows, valid_lists, latest = _lists(learned)
    ranked = fit_head(model, windows, valid_lists, config.rank, seed=config.seed, on_progress=say)
    tried = [p for p in ranked if p.reads == model.heads.place.reads]
    # without a validation list the last epoch's weights stay, see `fit_head`
    best = tried[-1] if valid_lists is None else max(tried, key=lambda p: p.ndcg + p.ndcg_new)
    history = [*learned.history, *({"stage": "ranking", **dataclasses.asdict(p)} for p in ranked)]
    by = choose_ties(model, newest, held_out, embed(model, held_out), config.ties, seed=config.seed)
    history.append({"stage": "ties", **dataclasses.asdict(by)})
    figures = evaluate(model, held_out, max_users=config.validation_users, seed=config.seed)
    if valid_lists is not None:  # after the last measurement on them
        refit_head(model, latest, valid_lists, config.rank, epochs=best.epoch + 1, seed=config.seed)
    if by.by_ties:
        refit_ties(model, [newest, held_out], config.ties, seed=config.seed)
    return Fitted(model.eval(), config, best.reads, best.epoch, best.ndcg, history, figures)


def _lists(learned: Learned) -> tuple[list[Window], Window | None, list[Window]]:
    """Lists of every window but the first, before which the vectors knew nothing, and of the validation window.

    A list of an earlier window learns what came in the later ones as well: what a user will like is not only what comes
    next, and a window alone has few labels. The third are the first with what came in the validation window.

    Where there is no other window, the first one's: by vectors that have seen its labels, for want of better.
    """
    model, generator, rank = learned.model, step_generator(learned.config.seed, 0, 0), learned.config.rank
    known, latest = [], []  # what lists learn until the validation window, and with it

    def made(window: Prepared) -> Window | None:
        vectors, sizes = embed(model, window), {"size": rank.candidates, "most": rank.lists}
        both = (window_lists(window, vectors, fresh=fresh, generator=generator, **sizes) for fresh in (False, True))
        found = Window(*both)
        window.forget()
        learned.shelf.rest()
        return found if found.kinds else None

    def add(number: int) -> None:
        window, later = learned.windows[number], learned.windows[number + 1 :]
        if found := made(window.followed_by([*later, learned.valid])):
            latest.append(found)
            known.append(found.learning(window.followed_by(later)))

    final = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(1, len(learned.windows)):
        prefix = f"{number}/"
        then = {k.removeprefix(prefix): v for k, v in learned.before.items() if k.startswith(prefix)}
        model.load_state_dict(then or final)  # fewer epochs than windows: the last ones were never learned
        add(number)
    model.load_state_dict(final)
    if not known:
        add(0)
    return known, made(learned.valid), latest
