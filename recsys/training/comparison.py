"""The table of a protocol: simple methods, and a model among them, on one city or several.

    measured = compare_places(user, place, moment, city=city, protocol="new", extra={"model": model})
    rows = protocol_rows(measured)  # {"popularity": {"recall": …, "ndcg": …}, …}

The seam for a model, or for a baseline that is made elsewhere, is `Scores`: numbers of users and candidates in, scores
out. What is compared here must have learned from what is before the same cut, which `places_task(...).cut` says.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import ConfigError, DataError
from recsys.training.als import Als
from recsys.training.baselines import Blend, Scores
from recsys.training.lightgcn import chosen_lightgcn
from recsys.training.measure import NOTHING, Measured, measure, pooled
from recsys.training.people_baselines import (
    AdamicAdar,
    CommonNeighbours,
    CoVisits,
    Degree,
    Jaccard,
    Katz,
    PersonalizedPageRank,
)
from recsys.training.place_baselines import AnyOrder, Ease, FriendsVisited, ItemKNN, OwnVisits, PopularPlaces
from recsys.training.protocols import (
    FriendsTask,
    Ints,
    PlacesProtocol,
    PlacesTask,
    friend_graph,
    friends_task,
    incidence,
    places_task,
)

RECENT = 0.15  # the last share of train's visits that recent popularity counts
FRIENDS_VISITED = 0.02  # what one friend's visit adds to an EASE score; fixed, never tuned on what is measured
CO_VISITS = 3.0  # what a cosine of 1 adds to Adamic-Adar, where a shared friend of 10 friends adds 0.43; fixed too
MIXES: Final = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # what it adds in the best mix: one of these
_HIDDEN = 0.1  # share of the friendships of before that choose the best mix


def place_methods(task: PlacesTask, graph: csr_array | None = None) -> dict[str, Scores]:
    """The simple methods for places, fitted on a task's train visits.

    Args:
        task: see `places_task`.
        graph: friendships of before the cut, (n_users, n_users) as `visits` has rows; None: no method with friends.

    Returns:
        By name; without EASE where it would be above its limit.
    """
    recent = task.train_moment >= np.quantile(task.train_moment, 1 - RECENT)
    visits = task.visits
    methods: dict[str, Scores] = {
        "random": AnyOrder(),
        "popularity": PopularPlaces(visits),
        "popularity_recent": PopularPlaces(
            incidence(task.train_user[recent], task.train_place[recent], (visits.shape[0], visits.shape[1]))
        ),
    }
    if task.protocol == "all":  # where what was visited is excluded, nothing but popularity is left of it
        methods["own_history"] = OwnVisits(visits)
    als = Als(visits, counts=task.protocol == "all")
    methods |= {"item_knn": ItemKNN(visits), "als": als, "lightgcn": chosen_lightgcn(task)}
    if Ease.fits(visits):
        ease = methods["ease"] = Ease(visits)
        if graph is not None:
            methods["ease_friends"] = Blend((1.0, ease), (FRIENDS_VISITED, FriendsVisited(visits, graph)))
    return methods


def people_methods(task: FriendsTask, visits: csr_array | None = None, *, seed: int = 0) -> dict[str, Scores]:
    """The simple methods for people; those with co-visits where (n_users, n_places) visits are given.

    Args:
        task: see `friends_task`.
        visits: how often each user was at each place before the targets.
        seed: see `best_mix`.
    """
    adamic_adar = AdamicAdar(task.graph)
    methods: dict[str, Scores] = {
        "random": AnyOrder(),
        "degree": Degree(task.graph),
        "common_neighbours": CommonNeighbours(task.graph),
        "jaccard": Jaccard(task.graph),
        "adamic_adar": adamic_adar,
        "katz": Katz(task.graph),
        "pagerank": PersonalizedPageRank(task.graph),
    }
    if visits is not None:
        co_visits = methods["co_visits"] = CoVisits(visits)
        methods["adamic_adar_co_visits"] = Blend((1.0, adamic_adar), (CO_VISITS, co_visits))
        methods["best_mix"] = Blend((1.0, adamic_adar), (best_mix(task, co_visits, seed=seed), co_visits))
    return methods


def best_mix(task: FriendsTask, co_visits: Scores, *, seed: int = 0) -> float:
    """What co-visits should add to Adamic-Adar, chosen without a look at the targets.

    A random tenth of the friendships of before is hidden from the graph; of `MIXES`, the weight that finds them with
    the highest NDCG@10 wins, the smaller of two equal ones.

    Args:
        task: only its graph and candidates are used.
        co_visits: the method that is added.
        seed: of what is hidden.

    Returns:
        The weight; 0 where there is nothing to hide.
    """
    row, column = task.graph.nonzero()
    pairs = np.stack([row, column], axis=1)[row < column].astype(np.int64)
    hidden = np.random.Generator(np.random.Philox(seed)).random(len(pairs)) < _HIDDEN
    kept = friends_task(pairs[~hidden], pairs[hidden], task.candidates, seed=seed, n_users=task.graph.shape[0])
    if not len(kept.users):
        return 0.0
    adamic_adar = AdamicAdar(kept.graph)
    found = [measure(kept, Blend((1.0, adamic_adar), (weight, co_visits))).ndcg.mean() for weight in MIXES]
    return MIXES[int(np.argmax(found))]


def compare_places(
    user: Ints,
    place: Ints,
    moment: Ints,
    *,
    protocol: PlacesProtocol,
    city: Ints | None = None,
    edges_before: Ints | None = None,
    extra: Mapping[str, Scores] | None = None,
    quantile: float = 0.8,
    cut: int | None = None,
    k: int = 10,
) -> dict[str, Measured]:
    """Measure the simple methods for places, and `extra` ones, city by city.

    Args:
        user, place, moment: (N,) visits, see `places_task`.
        protocol, quantile, cut, k: see `places_task` and `measure`; without `cut`, every city has its own.
        city: (N,) the city of each visit's place; None: one city.
        edges_before: (E, 2) friendships from before the cut; None: no method with friends.
        extra: more methods by name.

    Returns:
        By method, the users of all cities. A method that some city is too large for (see `Ease`) is left out.

    Raises:
        ConfigError: an extra method has the name of a simple one; see also `places_task`.
        DataError: see `places_task` and `measure`.
    """
    city = np.zeros(len(user), dtype=np.int64) if city is None else np.asarray(city)
    if len(city) != len(user):
        raise DataError(f"city must be as long as the visits, {len(user):,} (got {len(city):,})")
    n_users, n_places = int(np.max(user, initial=-1)) + 1, int(np.max(place, initial=-1)) + 1
    graph = None if edges_before is None else friend_graph(edges_before, n_users=n_users)
    cities = []
    for one in np.unique(city):
        here = city == one
        task = places_task(
            user[here],
            place[here],
            moment[here],
            protocol=protocol,
            quantile=quantile,
            cut=cut,
            n_users=n_users if graph is None else graph.shape[0],
            n_places=n_places,
        )
        if len(task.users):
            methods = _with(place_methods(task, graph), extra)
            cities.append({name: measure(task, method, k=k) for name, method in methods.items()})
    return _pooled(cities)


def compare_people(
    edges_before: Ints,
    target_pairs: Ints,
    users: Ints,
    *,
    city: Ints | None = None,
    visits: tuple[Ints, Ints] | None = None,
    extra: Mapping[str, Scores] | None = None,
    seed: int = 0,
    k: int = 10,
) -> dict[str, Measured]:
    """Measure the simple methods for people, and `extra` ones, city by city.

    Args:
        edges_before, target_pairs, users, seed: see `friends_task`.
        city: (len(users),) the home city of each user; None: one city.
        visits: (N,) users and (N,) places of the visits from before the targets; None: no co-visits.
        extra: more methods by name.
        k: see `measure`.

    Returns:
        By method, the users of all cities.

    Raises:
        ConfigError: an extra method has the name of a simple one.
        DataError: see `friends_task` and `measure`.
    """
    city = np.zeros(len(users), dtype=np.int64) if city is None else np.asarray(city)
    if len(city) != len(users):
        raise DataError(f"city must be as long as users, {len(users):,} (got {len(city):,})")
    visitors = np.zeros(0, dtype=np.int64) if visits is None else visits[0]
    n_users = int(np.max(visitors, initial=-1)) + 1
    cities = []
    for one in np.unique(city):
        task = friends_task(edges_before, target_pairs, users[city == one], seed=seed, n_users=n_users)
        counted = None
        if visits is not None:
            counted = incidence(*visits, (task.graph.shape[0], int(np.max(visits[1], initial=-1)) + 1))
        if len(task.users):
            methods = _with(people_methods(task, counted, seed=seed), extra)
            cities.append({name: measure(task, method, k=k) for name, method in methods.items()})
    return _pooled(cities)


def protocol_rows(measured: Mapping[str, Measured]) -> dict[str, dict[str, float]]:
    """By method the means over users, see `Measured.means`.

    Raises:
        DataError: there is nothing that was measured.
    """
    if not measured:
        raise DataError(NOTHING)
    return {name: one.means() for name, one in measured.items()}


def _with(methods: dict[str, Scores], extra: Mapping[str, Scores] | None) -> dict[str, Scores]:
    twice = methods.keys() & (extra or {}).keys()
    if twice:
        raise ConfigError(f"extra methods need names that no simple method has (got {', '.join(sorted(twice))})")
    return methods | dict(extra or {})


def _pooled(cities: list[dict[str, Measured]]) -> dict[str, Measured]:
    """Only what every city has: means over different cities cannot be compared."""
    names = [name for name in cities[0] if all(name in one for one in cities)] if cities else []
    return {name: pooled([one[name] for one in cities]) for name in names}
