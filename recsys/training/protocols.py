"""Evaluation protocols over arrays: who is asked what after a cut in time, and what a method may learn from before it.

One city at a time: the candidates are a city's. What is found is measured by `training/measure.py`; the table of simple
methods is made by `training/comparison.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from recsys.errors import ConfigError, DataError

Ints = npt.NDArray[np.int64]
PlacesProtocol = Literal["new", "all"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Users to rank candidates for. U users, C candidates, int64 numbers of the data in ascending order.

    Attributes:
        users: (U,). candidates: (C,).
        targets: CSR (U, C), 1 at what is to be found; every row has at least one.
        excluded: CSR (U, C), 1 at what is not in the user's list; never a target.
        popularity: (C,) how many of the data's users chose a candidate before the cut: visitors, or friends.
        population: how many users chose any.
        activity: (U,) how much is known of a user from before the cut: visits, or friends.
        negatives: (U, n) positions among the candidates to measure AUC against, -1 where fewer; None: no AUC.
    """

    users: Ints
    candidates: Ints
    targets: csr_array
    excluded: csr_array
    popularity: Ints
    population: int
    activity: Ints
    negatives: Ints | None = None


@dataclass(frozen=True, kw_only=True)
class PlacesTask(Task):
    """Places that users go to after a cut.

    Attributes:
        protocol: "new" or "all", see `places_task`.
        cut: train is strictly before it, test from it on; in the unit of `moment`.
        train_user, train_place, train_moment: (N,) int64, the visits before the cut in the order given.
        visits: CSR (n_users, n_places), how often in train.
    """

    protocol: PlacesProtocol
    cut: int
    train_user: Ints
    train_place: Ints
    train_moment: Ints
    visits: csr_array


@dataclass(frozen=True, kw_only=True)
class FriendsTask(Task):
    """Friendships to come. `graph` is CSR (n_users, n_users), symmetric, 1 at the friends of before."""

    graph: csr_array


def places_task(
    user: Ints,
    place: Ints,
    moment: Ints,
    *,
    protocol: PlacesProtocol,
    quantile: float = 0.8,
    cut: int | None = None,
    n_users: int = 0,
    n_places: int = 0,
) -> PlacesTask:
    """Split one city's visits in time and say what is to be found after the cut.

    Candidates are the places visited in train. A place that appears after the cut is neither a candidate nor a target:
    nothing that learns from visits could rank it. Users are those with a visit in train and at least one target.

    - "new": targets are the candidates that a user first visits after the cut; those visited in train are excluded.
    - "all": targets are all candidates that a user visits after the cut, revisits included; nothing is excluded.

    Args:
        user, place: (N,) int64 numbers, one row a visit, in any order.
        moment: (N,) int64 instants of one unit, microseconds in the lake; datetime64 counts in its own unit.
        protocol: see above.
        quantile: of the moments, the share of visits before the cut; in (0, 1).
        cut: instead of the quantile, where the test begins.
        n_users, n_places: at least so many rows and columns of `visits`, beyond the largest numbers.

    Raises:
        ConfigError: an unknown protocol, or a quantile out of range.
        DataError: the arrays are no numbers of one length, or there are no visits.
    """
    if protocol not in ("new", "all"):
        raise ConfigError(f"protocol must be 'new' or 'all' (got {protocol!r})")
    if not 0 < quantile < 1:
        raise ConfigError(f"quantile must be in (0, 1) (got {quantile})")
    user, place, moment = _numbers("user", user), _numbers("place", place), _moments(moment)
    sizes = len(user), len(place), len(moment)
    if len(set(sizes)) > 1 or not sizes[0]:
        raise DataError(f"visits need as many users as places and moments, at least one (got {sizes})")
    if cut is None:
        cut = cut_at(moment, quantile)
    train = moment < cut
    shape = (max(n_users, int(user.max()) + 1), max(n_places, int(place.max()) + 1))
    visits = incidence(user[train], place[train], shape)
    known = _ones(visits)
    future = _ones(incidence(user[~train], place[~train], shape))
    if protocol == "new":
        future = _without(future, known)
    candidates = np.unique(place[train])
    targets = future[:, candidates]
    users = np.flatnonzero((np.diff(visits.indptr) > 0) & (np.diff(targets.indptr) > 0))
    excluded = known[users][:, candidates] if protocol == "new" else csr_array((len(users), len(candidates)))
    return PlacesTask(
        users=users,
        candidates=candidates,
        targets=targets[users],
        excluded=excluded,
        popularity=np.bincount(visits.indices, minlength=shape[1])[candidates],
        population=int((np.diff(visits.indptr) > 0).sum()),
        activity=visits.sum(axis=1)[users].astype(np.int64),
        protocol=protocol,
        cut=cut,
        train_user=user[train],
        train_place=place[train],
        train_moment=moment[train],
        visits=visits,
    )


def cut_at(moment: Ints, quantile: float = 0.8) -> int:
    """The first moment of the test: so large a share of the visits is before it."""
    return int(np.ceil(np.quantile(moment, quantile)))


def friends_task(
    edges_before: Ints, target_pairs: Ints, users: Ints, *, negatives: int = 50, seed: int = 0, n_users: int = 0
) -> FriendsTask:
    """Say which friendships are to be found among `users`, given those of before.

    Candidates are all `users` but oneself and one's friends of before. Targets are the pairs that are not in
    `edges_before`, in both directions; pairs with an end outside of `users` are no targets, though friends outside
    still count in the graph. Users are those with a target.

    Args:
        edges_before, target_pairs: (E, 2) int64, a friendship in any direction, once or more; oneself is dropped.
        users: the numbers to rank, in any order.
        negatives: how many candidates that are no targets AUC is measured against, drawn for each user without
            replacement.
        seed: of the negatives.
        n_users: at least so many rows of the graph.

    Raises:
        DataError: arrays of another shape, or negative numbers.
    """
    candidates = np.unique(_numbers("users", users))
    largest = (np.max(np.asarray(x), initial=-1) for x in (edges_before, target_pairs, candidates))
    n = max(n_users, 1 + max(int(x) for x in largest))
    graph = friend_graph(edges_before, n_users=n)
    new = _without(friend_graph(target_pairs, n_users=n), graph)
    wanted = new[candidates][:, candidates]
    rows = np.flatnonzero(np.diff(wanted.indptr) > 0)
    targets = wanted[rows]
    itself = csr_array((np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=targets.shape)
    excluded = (graph[candidates[rows]][:, candidates] + itself).tocsr()
    degree = np.diff(graph.indptr).astype(np.int64)
    return FriendsTask(
        users=candidates[rows],
        candidates=candidates,
        targets=targets,
        excluded=excluded,
        popularity=degree[candidates],
        population=int((degree > 0).sum()),
        activity=degree[candidates[rows]],
        negatives=_negatives((targets + excluded).tocsr(), negatives, seed),
        graph=graph,
    )


def friend_graph(edges: Ints, *, n_users: int = 0) -> csr_array:
    """Friendships as a symmetric CSR array of ones, (n, n) with n above every number and at least `n_users`.

    Args:
        edges: (E, 2) int64, a friendship in any direction, once or more; oneself is dropped.

    Raises:
        DataError: another shape, or negative numbers.
    """
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise DataError(f"friendships must be (E, 2) (got {edges.shape})")
    a, b = _numbers("friendships", edges.reshape(-1)).reshape(-1, 2).T
    n = max(n_users, 1 + int(edges.max(initial=-1)))
    a, b = a[a != b], b[a != b]
    return _ones(incidence(np.concatenate([a, b]), np.concatenate([b, a]), (n, n)))


def incidence(rows: Ints, columns: Ints, shape: tuple[int, int]) -> csr_array:
    """CSR of how often each (row, column) comes, float64, sorted, without explicit zeros."""
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _ones(counts: csr_array) -> csr_array:
    return csr_array((np.ones(counts.nnz), counts.indices, counts.indptr), shape=counts.shape)


def _without(a: csr_array, b: csr_array) -> csr_array:
    """The entries of binary `a` that `b` lacks."""
    out = (a - a.multiply(b)).tocsr()
    out.eliminate_zeros()
    return out


def _negatives(taken: csr_array, wanted: int, seed: int) -> Ints:
    """(U, wanted) distinct columns where `taken` has nothing, uniformly; -1 where a row has fewer."""
    rng = np.random.Generator(np.random.Philox(seed))
    out = np.full((taken.shape[0], wanted), -1)
    for row in range(len(out)):
        mine = taken.indices[taken.indptr[row] : taken.indptr[row + 1]]
        # so many distinct draws hold enough even if all that is taken is among them
        drawn = rng.choice(taken.shape[1], size=min(taken.shape[1], wanted + len(mine)), replace=False)
        free = drawn[~np.isin(drawn, mine)][:wanted]
        out[row, : len(free)] = free
    return out


def _numbers(name: str, values: Any) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
        raise DataError(f"{name} must be (N,) integers of at least 0 (got {array.dtype} {array.shape})")
    return array.astype(np.int64)


def _moments(values: Any) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuM":
        raise DataError(f"moment must be (N,) integers or datetime64 (got {array.dtype} {array.shape})")
    return array.astype(np.int64)
