"""Who is asked what, what a method may know, and metrics against brute force."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.training import measure as measuring
from recsys.training.comparison import (
    MIXES,
    best_mix,
    compare_people,
    compare_places,
    people_methods,
    place_methods,
    protocol_rows,
)
from recsys.training.evaluation import ranking_metrics
from recsys.training.measure import expected_hits, expected_reciprocal_rank, in_list, measure, percentiles, pooled
from recsys.training.protocols import friend_graph, friends_task, incidence, places_task

# user, place, moment; the cut is at 10; place 9 opens after it, user 3 appears after it, user 4 never returns
VISITS = np.array(
    [
        [0, 0, 1],
        [0, 0, 2],
        [0, 1, 3],
        [1, 1, 4],
        [1, 2, 9],
        [2, 5, 0],
        [4, 0, 5],
        [0, 1, 10],
        [0, 2, 11],
        [0, 2, 12],
        [0, 9, 13],
        [1, 9, 14],
        [2, 5, 15],
        [3, 0, 16],
    ]
)


class Fixed:
    """Scores that a test chose, (n_users, n_candidates) by number."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(table)

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        return self.table[users][:, candidates]


class Outsider:
    """A model that was given its numbers by someone else: only what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        self.asked.append((users.tolist(), candidates.tolist()))
        return (users[:, None] * 31 + candidates[None] * 17).remainder(13).float()


def city(seed: int, n_users: int = 40, n_places: int = 30, n_visits: int = 900):
    """Visits with taste and popularity, (user, place, moment)."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n_users, n_visits)
    place = np.minimum((rng.exponential(6.0, n_visits) + user % 3 * 4).astype(int), n_places - 1)
    return user, place, rng.integers(0, 10**15, n_visits)


def friendships(seed: int, n: int = 40):
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, n, (150, 2)), axis=1), axis=0)
    pairs = rng.permutation(pairs[pairs[:, 0] != pairs[:, 1]])
    return pairs[:80], pairs[60:]  # some of the later list were there before


def matrix(sparse) -> list[list[int]]:
    return sparse.toarray().astype(int).tolist()


def test_new_places_by_hand() -> None:
    task = places_task(*VISITS.T, protocol="new", cut=10)
    assert task.candidates.tolist() == [0, 1, 2, 5]
    assert task.users.tolist() == [0]  # 1 only went where nothing was before, 2 only back, 3 is unknown, 4 is gone
    assert matrix(task.targets) == [[0, 0, 1, 0]]
    assert matrix(task.excluded) == [[1, 1, 0, 0]]
    assert task.visits.toarray()[0, :3].tolist() == [2, 1, 0]
    assert task.train_moment.tolist() == [1, 2, 3, 4, 9, 0, 5]


def test_all_places_by_hand() -> None:
    task = places_task(*VISITS.T, protocol="all", cut=10)
    assert task.candidates.tolist() == [0, 1, 2, 5]
    assert task.users.tolist() == [0, 2]
    assert matrix(task.targets) == [[0, 1, 1, 0], [0, 0, 0, 1]]
    assert task.excluded.nnz == 0


def test_the_cut_is_a_quantile_of_the_moments_and_train_is_strictly_before_it() -> None:
    user, place, moment = city(0)
    task = places_task(user, place, moment, protocol="all")
    assert task.cut == np.ceil(np.quantile(moment, 0.8))
    assert (task.train_moment < task.cut).all()
    assert len(task.train_user) == (moment < task.cut).sum() == 720
    dated = places_task(user, place, moment.astype("datetime64[us]"), protocol="all")
    assert dated.cut == task.cut
    same = np.zeros(len(user), dtype=np.int64)  # all at once: nothing is before anything
    assert len(places_task(user, place, same, protocol="all").users) == 0


def test_the_future_changes_no_score() -> None:
    user, place, moment = city(1)
    edges, _ = friendships(1)
    cut = int(np.quantile(moment, 0.8))
    graph = friend_graph(edges)
    later = np.array([[3, 3, 7, 39], [0, 1, 2, 29], [cut, cut + 5, 2 * 10**15, cut]])
    extended = [np.concatenate([old, new]) for old, new in zip((user, place, moment), later, strict=True)]
    train = moment < cut
    for protocol in ("new", "all"):
        tasks = [
            places_task(*visits, protocol=protocol, cut=cut, n_users=40, n_places=30)
            for visits in ((user, place, moment), extended, (user[train], place[train], moment[train]))
        ]
        everyone, candidates = torch.arange(40), torch.from_numpy(tasks[0].candidates)
        scored = [
            {name: method.scores(everyone, candidates) for name, method in place_methods(task, graph).items()}
            for task in tasks
        ]
        for other in scored[1:]:
            for name, scores in scored[0].items():
                assert torch.equal(scores, other[name]), name


def test_users_without_a_visit_of_before_or_a_target_are_not_asked_about() -> None:
    user, place, moment = city(2)
    for protocol in ("new", "all"):
        task = places_task(user, place, moment, protocol=protocol)
        train = moment < task.cut
        for u in range(40):
            before, after = set(place[train & (user == u)]), set(place[~train & (user == u)])
            targets = (after - before if protocol == "new" else after) & set(place[train])
            assert (u in task.users) == bool(before and targets)
            if u in task.users:
                row = int(np.searchsorted(task.users, u))
                assert set(task.candidates[task.targets.toarray()[row] > 0]) == targets
                excluded = before if protocol == "new" else set()
                assert set(task.candidates[task.excluded.toarray()[row] > 0]) == excluded


def test_expected_hits_are_means_over_every_order_of_the_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        scores, targets = rng.integers(0, 3, 6).astype(float), rng.random(6) < 0.4
        excluded = (rng.random(6) < 0.3) & ~targets
        scores[excluded] = -np.inf
        orders = [o for o in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
        for k in (1, 3, 6, 9):
            expected = np.mean([targets[list(o)][:k] for o in orders], axis=0)
            found = expected_hits(torch.from_numpy(scores)[None], torch.from_numpy(targets)[None], k)
            np.testing.assert_allclose(found[0], expected, atol=1e-12)


def test_reciprocal_rank_and_lists_are_means_over_every_order_of_the_ties() -> None:
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(80):
        scores, targets = rng.integers(0, 3, 6).astype(float), rng.random(6) < 0.4
        excluded = (rng.random(6) < 0.3) & ~targets
        scores[excluded] = -np.inf
        orders = [o for o in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
        block = torch.from_numpy(scores)[None], torch.from_numpy(targets)[None]
        if targets.any():
            seen += 1
            expected = np.mean([1 / (1 + np.flatnonzero(targets[list(o)])[0]) for o in orders])
            assert expected_reciprocal_rank(*block)[0] == pytest.approx(expected, abs=1e-12)
        for k in (1, 3, 6, 9):
            often = np.mean([[np.isin(c, o[:k]) and not excluded[c] for c in range(6)] for o in orders], axis=0)
            _, candidate, probability = in_list(block[0], k)
            found = np.zeros(6)
            found[candidate.numpy()] = probability.numpy()
            np.testing.assert_allclose(found, often, atol=1e-12)
    assert seen > 50


def test_metrics_of_the_catalogue_equal_a_loop_over_users() -> None:
    task = places_task(*city(15), protocol="new")
    table = np.random.default_rng(2).permutation(40 * 30).reshape(40, 30).astype(np.float32)
    found, visitors = measure(task, Fixed(table), k=3), (task.visits.toarray() > 0).sum(axis=0)
    active = int((task.visits.toarray().sum(axis=1) > 0).sum())
    listed: set[int] = set()
    for row, u in enumerate(task.users):
        excluded = task.excluded.toarray()[row] > 0
        ranked = sorted((int(p) for p, out in zip(task.candidates, excluded, strict=True) if not out),
                        key=lambda p: -table[u, p])  # fmt: skip
        wanted = set(task.candidates[task.targets.toarray()[row] > 0].tolist())
        assert found.by_user["mrr"][row] == pytest.approx(1 / (1 + min(ranked.index(p) for p in wanted)))
        at_20 = len(wanted & set(ranked[:20])) / min(20, len(wanted))
        assert found.by_user["recall_20"][row] == pytest.approx(at_20)
        top = ranked[:3]
        listed |= set(top)
        novelty = np.mean([-np.log2(visitors[p] / active) for p in top])
        assert found.by_user["novelty"][row] == pytest.approx(novelty)
        below = [np.mean([(visitors[c] < visitors[p]) + (visitors[c] == visitors[p]) / 2 for c in task.candidates])
                 for p in top]  # fmt: skip
        assert found.by_user["popularity_percentile"][row] == pytest.approx(np.mean(below))
        assert found.activity[row] == task.visits.toarray()[u].sum()
    assert found.means()["coverage"] == pytest.approx(len(listed) / len(task.candidates))


def test_coverage_of_ties_is_what_independent_orders_cover_on_average() -> None:
    task = places_task(*city(16), protocol="all")
    found = measure(task, Fixed(np.zeros((40, 30))), k=2)
    missed = (1 - 2 / len(task.candidates)) ** len(task.users)
    assert found.means()["coverage"] == pytest.approx(1 - missed)
    assert found.means()["popularity_percentile"] == pytest.approx(0.5)


def test_percentiles_halve_what_is_equal() -> None:
    assert percentiles(np.array([3, 1, 3, 7])).tolist() == [0.5, 0.125, 0.5, 0.875]


def test_metrics_without_ties_equal_a_loop_over_users() -> None:
    user, place, moment = city(3)
    task = places_task(user, place, moment, protocol="new")
    table = np.random.default_rng(0).permutation(40 * 30).reshape(40, 30).astype(np.float32) - 900
    found = measure(task, Fixed(table), k=4)
    for row, u in enumerate(task.users):
        excluded, targets = task.excluded.toarray()[row] > 0, task.targets.toarray()[row] > 0
        free = [(table[u, p], targets[c]) for c, p in enumerate(task.candidates) if not excluded[c]]
        hits = np.array([[hit for _, hit in sorted(free, reverse=True)]])
        recall, ndcg = ranking_metrics(hits, targets.sum(keepdims=True), 4)
        assert found.recall[row] == pytest.approx(recall[0])
        assert found.ndcg[row] == pytest.approx(ndcg[0])
    assert found.auc is None


def test_what_is_excluded_takes_no_rank() -> None:
    task = places_task(*VISITS.T, protocol="new", cut=10)
    table = np.zeros((5, 10))
    table[0, [0, 1, 2, 5]] = [9.0, 8.0, -7.0, -8.0]
    assert measure(task, Fixed(table), k=1).recall.tolist() == [1.0]


def test_a_constant_score_gets_what_chance_gets() -> None:
    task = places_task(*city(4), protocol="all")
    found = measure(task, Fixed(np.ones((40, 30))), k=10)
    targets = np.diff(task.targets.indptr)
    np.testing.assert_allclose(found.recall, 10 * targets / len(task.candidates) / np.minimum(targets, 10))


def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = friendships(5)
    task = friends_task(before, after, np.arange(40))
    method = people_methods(task)["adamic_adar"]
    whole = measure(task, method)
    monkeypatch.setattr(measuring, "_CELLS", 3 * 40)
    blocks = measure(task, method)
    assert whole.means() == blocks.means()
    np.testing.assert_array_equal(whole.auc, blocks.auc)


def test_friendships_to_come_by_hand() -> None:
    before = np.array([[1, 2], [2, 1], [2, 3], [7, 4], [4, 4]])
    after = np.array([[2, 1], [4, 1], [3, 1], [1, 9], [4, 4]])
    task = friends_task(before, after, np.array([4, 3, 2, 1]), negatives=2)
    assert task.candidates.tolist() == [1, 2, 3, 4]
    assert task.users.tolist() == [1, 3, 4]  # 2 meets nobody new
    assert matrix(task.targets) == [[0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert matrix(task.excluded) == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert sorted(zip(*map(list, task.graph.nonzero()), strict=True)) == [
        (1, 2),
        (2, 1),
        (2, 3),
        (3, 2),
        (4, 7),
        (7, 4),
    ]
    assert task.negatives is not None
    assert [sorted(row) for row in task.negatives.tolist()] == [[-1, -1], [-1, 3], [1, 2]]


def test_negatives_are_distinct_strangers_drawn_the_same_way_every_time() -> None:
    before, after = friendships(6)
    task, again, other = (friends_task(before, after, np.arange(40), negatives=12, seed=s) for s in (0, 0, 1))
    assert task.negatives is not None
    np.testing.assert_array_equal(task.negatives, again.negatives)
    assert not np.array_equal(task.negatives, other.negatives)
    taken = (task.targets + task.excluded).toarray() > 0
    for row, drawn in enumerate(task.negatives):
        assert len(set(drawn.tolist())) == 12
        assert not taken[row, drawn].any()


def test_auc_equals_brute_force() -> None:
    before, after = friendships(7)
    task = friends_task(before, after, np.arange(40), negatives=9)
    table = np.random.default_rng(0).integers(0, 5, (40, 40)).astype(float)
    found = measure(task, Fixed(table))
    assert found.auc is not None
    assert task.negatives is not None
    for row, u in enumerate(task.users):
        pairs = [
            (table[u, p] > table[u, n]) + 0.5 * (table[u, p] == table[u, n])
            for p in np.flatnonzero(task.targets.toarray()[row])
            for n in task.negatives[row]
        ]
        assert found.auc[row] == pytest.approx(np.mean(pairs))


def test_a_user_with_no_stranger_left_has_no_auc() -> None:
    task = friends_task(np.array([[0, 1]]), np.array([[0, 2]]), np.arange(3))
    found = measure(task, Fixed(np.ones((3, 3))))
    assert found.auc is not None
    assert np.isnan(found.auc).tolist() == [True, False]  # user 2 has the stranger 1
    halfway = (1 + 1 / np.log2(3)) / 2  # user 2's target is first or second
    assert found.means() == {
        "recall": 1.0,
        "recall_20": 1.0,
        "ndcg": pytest.approx((1 + halfway) / 2),
        "mrr": pytest.approx((1 + (1 + 1 / 2) / 2) / 2),
        "popularity_percentile": pytest.approx((1 / 6 + (2 / 3 + 2 / 3) / 2) / 2),  # degrees 1, 1, 0
        "novelty": pytest.approx(1.0),  # one of two that have a friend, and who has none counts as having one
        "auc": 0.5,
        "coverage": 1.0,
    }


@pytest.mark.parametrize("protocol", ["new", "all"])
def test_other_numbers_for_users_and_places_give_the_same_metrics(protocol) -> None:
    user, place, moment = city(8)
    edges, _ = friendships(8)
    rng = np.random.default_rng(0)
    new_user, new_place, order = rng.permutation(55)[:40], rng.permutation(41)[:30], rng.permutation(len(user))
    rows = protocol_rows(compare_places(user, place, moment, protocol=protocol, edges_before=edges, k=5))
    renumbered = compare_places(
        new_user[user][order],
        new_place[place][order],
        moment[order],
        protocol=protocol,
        edges_before=new_user[edges],
        k=5,
    )
    for name, row in protocol_rows(renumbered).items():
        # EASE's inverse is rounded otherwise, and splits ties
        tolerance = {"ease": 0.02, "ease_friends": 0.02}.get(name, 1e-9)
        if name in ("als", "lightgcn"):  # begin with random factors in the order of the numbers
            continue
        assert row == pytest.approx(rows[name], abs=tolerance), name


def test_other_numbers_for_people_give_the_same_ranking_metrics() -> None:
    before, after = friendships(9)
    user, place, _ = city(9)
    number = np.random.default_rng(0).permutation(50)[:40]
    first = compare_people(before, after, np.arange(40), visits=(user, place))
    second = compare_people(number[before][:, ::-1], number[after], number, visits=(number[user], place))
    for name, row in protocol_rows(second).items():
        if name == "best_mix":  # another tenth is hidden to choose it
            continue
        assert row["recall"] == pytest.approx(first[name].means()["recall"], abs=1e-9), name
        assert row["ndcg"] == pytest.approx(first[name].means()["ndcg"], abs=1e-9), name


def test_the_table_of_places_has_the_methods_and_a_model_beside_them() -> None:
    user, place, moment = city(10)
    edges, _ = friendships(10)
    model = Outsider()
    rows = protocol_rows(
        compare_places(user, place, moment, protocol="new", edges_before=edges, extra={"model": model})
    )
    simple = ["random", "popularity", "popularity_recent", "item_knn", "als", "lightgcn", "ease"]
    assert list(rows) == [*simple, "ease_friends", "model"]
    bounded = ("recall", "recall_20", "ndcg", "mrr", "popularity_percentile", "coverage")
    assert all(0 < row[metric] <= 1 for row in rows.values() for metric in bounded)
    task = places_task(user, place, moment, protocol="new")
    assert model.asked == [(task.users.tolist(), task.candidates.tolist())]
    assert list(protocol_rows(compare_places(user, place, moment, protocol="all"))) == [
        *simple[:3],
        "own_history",
        *simple[3:],
    ]
    assert "ease_friends" not in compare_places(user, place, moment, protocol="new")


def test_the_table_of_people_has_the_methods_and_a_model_beside_them() -> None:
    before, after = friendships(11)
    user, place, _ = city(11)
    everyone = np.arange(40)
    rows = protocol_rows(compare_people(before, after, everyone, visits=(user, place), extra={"model": Outsider()}))
    simple = ["random", "degree", "common_neighbours", "jaccard", "adamic_adar", "katz", "pagerank"]
    assert list(rows) == [*simple, "co_visits", "adamic_adar_co_visits", "best_mix", "model"]
    assert set(rows["model"]) == set(rows["degree"]) >= {"recall", "ndcg", "auc"}
    assert list(compare_people(before, after, everyone)) == simple


def test_the_best_mix_is_chosen_without_the_targets() -> None:
    """Friends go to the same places and share nobody: what is hidden is found by co-visits, so they get all weight."""
    pairs = np.arange(120).reshape(60, 2)
    where = incidence(np.arange(120), np.arange(120) // 2, (120, 60))
    task, other = (friends_task(pairs, np.array(targets), np.arange(120)) for targets in ([[0, 2]], [[1, 5], [7, 9]]))
    weight = best_mix(task, people_methods(task, where)["co_visits"])
    assert weight == MIXES[1]  # all weights above 0 are as good, and nothing else is
    assert best_mix(other, people_methods(other, where)["co_visits"]) == weight
    nobody = friends_task(np.zeros((0, 2), dtype=int), np.array([[0, 1]]), np.arange(3))
    assert best_mix(nobody, people_methods(nobody)["degree"]) == 0.0


def test_several_cities_are_their_users_put_together() -> None:
    one, two = city(12), city(13)
    shifted = (two[0] + 40, two[1] + 30, two[2] * 2)
    both = [np.concatenate(columns) for columns in zip(one, shifted, strict=True)]
    where = np.repeat([7, 3], [len(one[0]), len(two[0])])
    together = compare_places(*both, protocol="new", city=where)
    apart = [compare_places(*visits, protocol="new") for visits in (two, one)]
    for name, found in together.items():
        np.testing.assert_allclose(found.recall, pooled([part[name] for part in apart]).recall, atol=1e-9)
    before, after = np.array([[0, 1], [1, 2], [5, 6], [6, 7]]), np.array([[0, 2], [5, 7], [0, 5]])
    people = compare_people(before, after, np.arange(8), city=np.arange(8) // 4)
    assert people["degree"].users.tolist() == [0, 2, 5, 7]
    assert people["common_neighbours"].means()["recall"] == 1.0  # the pair of two cities is no target


def test_a_city_too_large_for_ease_has_a_table_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.place_baselines.EASE_LIMIT", 5)
    assert list(compare_places(*city(14), protocol="new")) == [
        "random",
        "popularity",
        "popularity_recent",
        "item_knn",
        "als",
        "lightgcn",
    ]


def test_recent_popularity_counts_the_end_of_train() -> None:
    user, place = np.arange(20), np.repeat([0, 1], [16, 4])
    task = places_task(np.append(user, 0), np.append(place, 1), np.arange(21), protocol="all", cut=20)
    methods = place_methods(task)
    scores = {name: methods[name].scores(torch.tensor([0]), torch.tensor([0, 1]))[0].tolist() for name in methods}
    assert scores["popularity"] == [16, 4]
    assert scores["popularity_recent"] == [0, 3]  # the last three of twenty


def test_what_cannot_be_measured_is_refused() -> None:
    user, place, moment = VISITS.T
    with pytest.raises(ConfigError, match=r"protocol must be 'new' or 'all' \(got 'old'\)"):
        places_task(user, place, moment, protocol="old")
    with pytest.raises(ConfigError, match=r"quantile must be in \(0, 1\) \(got 1\)"):
        places_task(user, place, moment, protocol="new", quantile=1)
    with pytest.raises(DataError, match=r"as many users as places and moments, at least one \(got \(14, 13, 14\)\)"):
        places_task(user, place[1:], moment, protocol="new")
    with pytest.raises(DataError, match="user must be"):
        places_task(user - 1, place, moment, protocol="new")
    with pytest.raises(DataError, match="place must be"):
        places_task(user, place + 0.5, moment, protocol="new")
    with pytest.raises(DataError, match=r"moment must be .* \(got float64 \(14,\)\)"):
        places_task(user, place, moment / 2, protocol="new")
    with pytest.raises(DataError, match=r"friendships must be \(E, 2\) \(got \(4,\)\)"):
        friends_task(np.arange(4), np.zeros((0, 2), dtype=int), np.arange(4))
    with pytest.raises(DataError, match="city must be as long"):
        compare_places(user, place, moment, protocol="new", city=np.zeros(3))
    with pytest.raises(DataError, match="city must be as long"):
        compare_people(np.array([[0, 1]]), np.array([[0, 2]]), np.arange(3), city=np.zeros(2))
    with pytest.raises(ConfigError, match="names that no simple method has \\(got popularity\\)"):
        compare_places(user, place, moment, protocol="new", cut=10, extra={"popularity": Outsider()})
    with pytest.raises(DataError, match="nothing to measure"):
        protocol_rows(compare_places(user, place, moment, protocol="new", cut=0))
    task = places_task(user, place, moment, protocol="new", cut=10)
    with pytest.raises(DataError, match=r"Fixed must be \(users, candidates\) = \(1, 4\) \(got \(1, 1\)\)"):
        measure(task, type("Fixed", (), {"scores": lambda *_: torch.zeros(1, 1)})())
    with pytest.raises(DataError, match=r"must be finite \(got 4 that are not\)"):
        measure(task, Fixed(np.full((5, 10), np.nan)))
    with pytest.raises(ConfigError, match="k must be at least 1"):
        measure(task, Fixed(np.zeros((5, 10))), k=0)
    empty = places_task(user, place, moment, protocol="new", cut=1)
    with pytest.raises(DataError, match="nothing to measure"):
        measure(empty, Fixed(np.zeros((5, 10)))).means()


def test_repeated_rows_are_counted_once_each() -> None:
    counted = incidence(np.array([0, 0, 1]), np.array([2, 2, 0]), (2, 3))
    assert matrix(counted) == [[0, 0, 2], [1, 0, 0]]
