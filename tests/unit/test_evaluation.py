"""Metrics by hand, baselines by hand, and the whole evaluation against a loop."""

import numpy as np
import pytest
import torch

from recsys.constants import C_COARSE, POSITIVE_RATING, SLOT_NOT_SAID
from recsys.graph import Snapshot
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.training.baselines import OwnHistory, Popularity, Random
from recsys.training.evaluation import auc, bootstrap_difference, embed, evaluate, place_scores, ranking_metrics
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.lists import city_lists
from recsys.training.retrieval import exact_recall
from tests.planted import Planted


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Planted(n_users=60, n_places=90, n_cities=2, weeks=4, visits=6).snapshot(3)


@pytest.fixture(scope="module")
def prepared(snapshot: Snapshot) -> Prepared:
    return prepare(snapshot, size_config([snapshot], ModelConfig()))


@pytest.fixture(scope="module")
def model(snapshot: Snapshot) -> RecModel:
    torch.manual_seed(0)
    return RecModel(size_config([snapshot], ModelConfig())).eval()


def test_metrics_by_hand() -> None:
    hits = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    recall, ndcg = ranking_metrics(hits, np.array([2, 1, 9]), k=3)
    assert recall == pytest.approx([2 / 2, 0, 1 / 3])
    dcg = [1 + 1 / np.log2(4), 0, 1 / np.log2(3)]
    ideal = [1 + 1 / np.log2(3), 1, 1 + 1 / np.log2(3) + 1 / np.log2(4)]
    assert ndcg == pytest.approx([d / i for d, i in zip(dcg, ideal, strict=True)])


def test_exact_recall_against_a_loop(model: RecModel, prepared: Prepared) -> None:
    vectors, ranker, found = embed(model, prepared), Ranker(model.config, model.heads), []
    for user in range(60):
        city = int(prepared.users.city[user])
        one, n = torch.tensor([user]), len(prepared.places.of(city))
        near, _ = place_scores(ranker, vectors, prepared, one, city, 12)
        every, scores = place_scores(ranker, vectors, prepared, one, city, n)
        assert sorted(every[0].tolist()) == list(range(n))
        best = every[0, scores[0].argsort(descending=True)[:5]].tolist()
        found.append(len(set(best) & set(near[0].tolist())) / 5)
    assert 0.1 < np.mean(found) < 0.9
    assert exact_recall(model, prepared, vectors, k=5, candidates=12) == pytest.approx(np.mean(found))
    assert exact_recall(model, prepared, vectors, candidates=90) is None, "everything is a candidate"


def test_a_catalogue_shorter_than_the_list() -> None:
    recall, ndcg = ranking_metrics(np.array([[True, True]]), np.array([2]), k=10)
    assert recall == pytest.approx([1.0])
    assert ndcg == pytest.approx([1.0])


def test_auc_by_hand() -> None:
    scores, labels = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])
    # pairs: .9>.8, .9>.1, .8=.8 (half), .8>.1
    assert auc(scores, labels) == pytest.approx(3.5 / 4)
    assert auc(scores, np.ones(4, dtype=bool)) is None
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 200) / 9, rng.random(200) < 0.3
    pairs = scores[labels][:, None] - scores[~labels][None]
    assert auc(scores, labels) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_bootstrap_covers_the_mean_and_is_paired() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(500)
    found = bootstrap_difference(base + 0.01, base)
    assert found["low"] == pytest.approx(0.01)
    assert found["high"] == pytest.approx(0.01)
    noisy = bootstrap_difference(rng.normal(0.5, 1, 400), np.zeros(400))
    assert noisy["low"] < noisy["mean"] < noisy["high"]
    assert noisy["high"] - noisy["low"] == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert bootstrap_difference(np.zeros(0), np.zeros(0))["mean"] == 0.0


def test_evaluation_equals_a_loop_over_users(snapshot: Snapshot, prepared: Prepared, model: RecModel) -> None:
    result = evaluate(model, prepared, k=5, candidates=12)
    vectors, ranker = embed(model, prepared), Ranker(model.config, model.heads)
    recalls, ndcgs, candidate_recalls, by_id = [], [], [], {}
    home, place_city = prepared.users.city, prepared.places.city
    for user in range(len(home)):
        city = int(home[user])
        catalogue = [p for p in range(len(place_city)) if int(place_city[p]) == city]
        targets = {
            int(p)
            for u, p, r in zip(
                snapshot.labels.user.tolist(), snapshot.labels.place, snapshot.labels.rating, strict=True
            )
            if u == user and float(r) >= POSITIVE_RATING and int(p) in catalogue
        }
        if not targets:
            continue
        lists = city_lists(prepared, vectors, torch.tensor([user]), city, 12)
        places, inputs = lists.inputs(prepared)
        retrieved = places[0]
        assert set(retrieved.tolist()) <= set(catalogue)
        scores = ranker.score_places(
            vectors.user[user].numpy(),
            vectors.place[retrieved].numpy(),
            inputs[0].numpy(),
            city_id=city,
            slot=SLOT_NOT_SAID,
        )
        ranked = retrieved[torch.from_numpy(scores).argsort(descending=True)][:5].tolist()
        best = min(5, len(targets))
        recalls.append(sum(p in targets for p in ranked) / best)
        gain = sum(1 / np.log2(i + 2) for i, p in enumerate(ranked) if p in targets)
        ndcgs.append(gain / sum(1 / np.log2(i + 2) for i in range(best)))
        by_id[int(snapshot.data["user"].user_id[user])] = ndcgs[-1]
        candidate_recalls.append(sum(p in targets for p in retrieved.tolist()) / min(12, len(targets)))
    assert result.users == len(recalls)
    row = result.rows["model"]
    assert row["recall"] == pytest.approx(np.mean(recalls))
    assert row["ndcg"] == pytest.approx(np.mean(ndcgs))
    assert row["candidate_recall"] == pytest.approx(np.mean(candidate_recalls))
    whose = dict(zip(result.user_id.tolist(), result.per_user["model"][1].tolist(), strict=True))
    assert whose == pytest.approx(by_id), "the values by user know whose they are"
    assert set(result.rows) == {"model", "random", "popularity", "own_history"}
    assert result.difference["ndcg"]["mean"] == pytest.approx(row["ndcg"] - result.rows["popularity"]["ndcg"])


def test_a_sample_of_users_is_the_same_sample_every_time(prepared: Prepared, model: RecModel) -> None:
    first, second = (evaluate(model, prepared, max_users=10, people=False) for _ in range(2))
    assert first.users == 10
    assert first.to_dict() == second.to_dict()
    assert first.friend_auc is None


def test_baselines_by_hand(snapshot: Snapshot, prepared: Prepared) -> None:
    users, places = torch.arange(6), prepared.places.of(0)
    popular = Popularity(prepared, seed=0).scores(users, places)
    assert popular.shape == (6, len(places))
    counts = snapshot.place_online[places, 6]
    order = popular[0].argsort(descending=True)
    assert bool((counts[order].diff() <= 0).all())
    assert len(set(popular[0].tolist())) == len(places)  # every tie is broken
    own = OwnHistory(prepared, seed=0).scores(users, places)
    edges = snapshot.data["user", "interacts", "place"]
    visited = {(int(u), int(p)): float(c) for (u, p), c in zip(edges.edge_index.t(), edges["count"], strict=True)}
    for i, user in enumerate(users.tolist()):
        for j, place in enumerate(places.tolist()):
            expected = 2 * visited.get((user, place), 0.0) + float(popular[0, j])
            assert float(own[i, j]) == pytest.approx(expected)
    drawn = Random(3).scores(users, places)
    torch.testing.assert_close(drawn, Random(3).scores(users, places))


def test_a_request_scores_as_evaluation_does(snapshot: Snapshot, prepared: Prepared, model: RecModel) -> None:
    """One implementation for both, and one candidate's score does not depend on the others."""
    vectors, ranker = embed(model, prepared), Ranker(model.config, model.heads)
    users, places = torch.arange(4), prepared.places.of(1)[:7].repeat(4, 1)
    online = snapshot.place_features(users[:, None].expand_as(places).reshape(-1), places.reshape(-1)).reshape(4, 7, -1)
    positions = prepared.places.position[places].numpy()
    signals = prepared.sources.signals(prepared.sources.ask(users.numpy(), 1), positions)
    fits = prepared.traits.fits(prepared.stated(users), 1, places.numpy())
    online = torch.cat([online, torch.from_numpy(fits), torch.from_numpy(signals)], dim=2)
    categories = torch.zeros(4, C_COARSE)
    categories[:, [1, 4]] = 1.0
    batch = ranker.place_logits(
        vectors.user[users],
        vectors.place[places],
        online,
        city=torch.full((4,), 1),
        slot=torch.full((4,), 2),
        categories=categories,
    ).sigmoid()
    for i in range(4):
        row = ranker.score_places(
            vectors.user[i].numpy(),
            vectors.place[places[i]].numpy(),
            online[i].numpy(),
            city_id=1,
            slot=2,
            categories=[1, 4],
        )
        np.testing.assert_allclose(row, batch[i].numpy(), rtol=1e-5, atol=1e-6)
        assert row.dtype == np.float32
        assert ((row > 0) & (row < 1)).all()
