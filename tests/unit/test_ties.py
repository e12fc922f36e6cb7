"""The friend head learns from friendships: what is hidden leaks nowhere, what comes later changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.constants import SLOT_NOT_SAID
from recsys.graph import FriendLabels, NewTies, Snapshot
from recsys.models.config import ModelConfig
from recsys.models.heads import D_PEOPLE_INPUT, FriendHead, TieScorer
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.sources import PEOPLE_SIGNALS, Outings, PeopleSources
from recsys.training.evaluation import embed, people_scores
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.model_scores import ModelPeople
from recsys.training.ties import TieConfig, calibrate, choose_ties, fit_ties, hidden_ties, tie_lists
from tests.planted import Planted
from tests.unit.test_people_sources import HOME, NOTHING, M, N, history, symmetric

CONFIG = TieConfig(folds=2, share=0.2, drawn=5, epochs=3, batch=8)


def circles(n: int = 120, seed: int = 0, homes: int = 1) -> PeopleSources:
    """Groups of ten in which half of all pairs are friends, who go to places of their own."""
    rng = np.random.default_rng(seed)
    u, v = np.triu_indices(n, 1)
    keep = (u // 10 == v // 10) & (rng.random(len(u)) < 0.5)
    user = np.repeat(np.arange(n), 4)
    place = (user // 10 * 3 + rng.integers(0, 3, len(user))) % (n // 4)
    outings = Outings.of(user, place, rng.integers(0, 30, len(user)), (n, n // 4))
    return PeopleSources(symmetric(u[keep], v[keep], n), outings, np.arange(n) // 10 % homes)


@pytest.fixture
def sources() -> PeopleSources:
    ties, visits = history()
    return PeopleSources(symmetric(*ties), Outings.of(*visits, (N, M)), HOME)


def test_everyone_keeps_a_friend(sources: PeopleSources) -> None:
    u, v = hidden_ties(sources, 0.5, np.random.default_rng(0))
    assert (u < v).all()
    assert len(u) == round(0.5 * sources.friends.nnz / 2)
    assert (sources.friends[u, v] == 1).all()
    before, after = (np.diff(x.friends.indptr) for x in (sources, sources.without(u, v)))
    assert after.sum() == before.sum() - 2 * len(u)
    assert (after[before > 0] > 0).all()
    only = PeopleSources(symmetric(np.array([0]), np.array([1])), sources.outings, HOME)
    assert len(hidden_ties(only, 1.0, np.random.default_rng(0))[0]) == 0


def test_a_list_knows_nothing_of_what_is_hidden(sources: PeopleSources) -> None:
    """Its signals are those of a graph in which the hidden ties never were, and nobody known is a negative."""
    u, v = hidden_ties(sources, CONFIG.share, np.random.default_rng(7))
    lists = tie_lists(sources, CONFIG, np.random.default_rng(7))
    assert lists is not None
    known = sources.without(u, v)
    pairs = {(int(a), int(b)) for x, y in ((u, v), (v, u)) for a, b in zip(x, y, strict=True) if HOME[a] == HOME[b]}
    users = sorted({a for a, _ in pairs}, key=lambda a: (HOME[a], a))
    assert len(users) == len(lists.hidden)
    found = set()
    for row, user in enumerate(users):
        members = known.members(int(HOME[user]))
        block = known.ask(np.array([user, user]), int(HOME[user]))  # as lists ask: of one alone sums are rounded apart
        by_signals = {
            known.signals(block, np.array([[at], [at]]))[:1].tobytes(): int(peer) for at, peer in enumerate(members)
        }
        there = lists.log_weight[row].isfinite()
        peers = [by_signals[x.numpy().tobytes()] for x in lists.signals[row][there]]
        assert len(set(peers)) == len(peers)
        assert user not in peers
        hidden = {p for p, h in zip(peers, lists.hidden[row][there], strict=True) if h}
        found |= {(user, p) for p in hidden}
        assert not any(sources.friends[user, p] for p in set(peers) - hidden)
        others = [p for p in members.tolist() if p != user and not sources.friends[user, p]]
        stand = (lists.log_weight[row][there] * ~lists.hidden[row][there]).exp()[~lists.hidden[row][there]].sum()
        assert float(stand) == pytest.approx(len(others), rel=1e-4)  # all others are stood for
    assert found == pairs


def test_it_finds_friends_whom_it_was_never_shown() -> None:
    sources = circles()
    u, v = hidden_ties(sources, 0.2, np.random.default_rng(5))
    known = sources.without(u, v)
    scorer = TieScorer(ModelConfig())
    assert fit_ties(scorer, known, replace(CONFIG, epochs=10), seed=0)
    strangers = np.random.default_rng(6).permutation(120)[: len(u)]
    free = (known.friends[u, strangers] == 0) & (sources.friends[u, strangers] == 0) & (u // 10 != strangers // 10)
    with torch.inference_mode():
        mine, others = (scorer(torch.from_numpy(known.pairs(u, peers))).numpy() for peers in (v, strangers))
    assert (mine[free] > others[free]).mean() > 0.9
    again = TieScorer(ModelConfig())
    fit_ties(again, known, replace(CONFIG, epochs=10), seed=0)
    for name, value in scorer.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("n", [1, 5])
def test_without_friendships_there_is_nothing_to_learn_from(n: int) -> None:
    nobody = PeopleSources(
        symmetric(NOTHING, NOTHING, n), Outings.of(NOTHING, NOTHING, NOTHING, (n, 0)), np.zeros(n, dtype=np.int64)
    )
    scorer = TieScorer(ModelConfig())
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    assert not fit_ties(scorer, nobody, CONFIG, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in scorer.state_dict().items())


# ------------------------------------------------------------------------------------------------- labels and choosing
@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Planted(n_users=80, n_places=60, weeks=4, visits=5).snapshot(3)


def known_by_ties(snapshot: Snapshot) -> Snapshot:
    """Friends of the graph and pairs of strangers as labels: what only a graph can tell."""
    n = len(snapshot.user_online)
    rng = np.random.default_rng(1)
    sources = circles(n)
    row, column = sources.friends.nonzero()
    tied = row < column
    u, v = row[tied][::2], column[tied][::2]
    a = rng.integers(0, n // 10, len(u)) * 10
    b = (a + 10 * rng.integers(1, n // 10, len(u))) % n + rng.integers(0, 10, len(u))
    return replace(
        snapshot,
        friends=_labels(np.concatenate([u, a]), np.concatenate([v, b]), len(u)),
        new_ties=NewTies(torch.from_numpy(u), torch.from_numpy(v)),
    )


def _labels(u: np.ndarray, v: np.ndarray, positives: int) -> FriendLabels:
    compat = torch.zeros(len(u))
    compat[:positives] = 1
    attend = compat * (torch.arange(len(u)) % 2)
    return FriendLabels(torch.from_numpy(u), torch.from_numpy(v), compat, attend, torch.full((len(u),), 2))


def with_circles(snapshot: Snapshot) -> Prepared:
    prepared = prepare(known_by_ties(snapshot), size_config([snapshot], ModelConfig()))
    labels = prepared.snapshot.friends
    matched = labels.compat > 0.5
    # labels are of friendships to come: the graph does not have them
    sources = circles(len(prepared.users.city)).without(labels.user_u[matched].numpy(), labels.user_v[matched].numpy())
    prepared.__dict__["people_sources"] = PeopleSources(sources.friends, sources.outings, prepared.users.city.numpy())
    return prepared


def test_friendships_decide_where_they_tell_more_and_their_probabilities_are_in_order(snapshot: Snapshot) -> None:
    prepared = with_circles(snapshot)
    torch.manual_seed(0)
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    embeddings = embed(model, prepared)
    chosen = choose_ties(model, prepared, prepared, embeddings, CONFIG, seed=0)
    assert chosen.by_ties
    assert chosen.new_ties == len(prepared.snapshot.new_ties.user_u) > 20
    assert chosen.auc_pairs is not None
    assert chosen.auc_ties is not None
    assert chosen.auc_ties > 0.85 > chosen.auc_pairs
    compat, attend = people_scores(Ranker(model.config, model.heads), embeddings, prepared)
    # a line with an offset is right on average, up to its weak prior
    labels = prepared.snapshot.friends
    assert float(compat.sigmoid().mean()) == pytest.approx(float(labels.compat.mean()), abs=0.02)
    assert float(attend.sigmoid().mean()) == pytest.approx(float(labels.attend.mean()), abs=0.02)
    assert torch.equal(compat.argsort(), attend.argsort())
    # one implementation: everybody's score in a protocol is the pair's
    ids = prepared.snapshot.data["user"].user_id
    method = ModelPeople(model, prepared)
    for user in range(5):
        peers = torch.arange(len(ids))[prepared.users.city == prepared.users.city[user]]
        inputs = torch.zeros(len(peers), D_PEOPLE_INPUT)
        inputs[:, -len(PEOPLE_SIGNALS) :] = torch.from_numpy(
            prepared.people_sources.pairs(np.full(len(peers), user), peers.numpy())
        )
        vectors = embeddings.people
        a, b = model.heads.friend(vectors[user], vectors[peers], torch.zeros(len(peers), 16), inputs)
        expected = 0.7 * a.sigmoid() + 0.3 * b.sigmoid()
        torch.testing.assert_close(method.scores(ids[[user]], ids[peers])[0], expected, atol=1e-5, rtol=1e-4)


def test_where_the_network_foresees_friendships_better_it_stays_as_it_was(snapshot: Snapshot) -> None:
    """Friendships that follow from the network's own score, and from nothing that the sources see."""
    prepared = prepare(snapshot, size_config([snapshot], ModelConfig()))
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    embeddings, labels = embed(model, prepared), snapshot.friends
    before = people_scores(Ranker(model.config, model.heads), embeddings, prepared)
    compat = (before[0] > before[0].median()).float()
    match = compat > 0.5
    told = replace(labels, compat=compat)
    new = NewTies(labels.user_u[match], labels.user_v[match])
    foreseen = replace(prepared, snapshot=replace(snapshot, friends=told, new_ties=new))
    chosen = choose_ties(model, foreseen, foreseen, embeddings, CONFIG, seed=0)
    assert not chosen.by_ties
    assert chosen.auc_pairs == 1.0
    after = people_scores(Ranker(model.config, model.heads), embeddings, foreseen)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_where_nobody_becomes_friends_the_labels_decide(snapshot: Snapshot) -> None:
    """As in the synthetic world: who knows whom is known from the start."""
    prepared = with_circles(snapshot)
    none = torch.zeros(0, dtype=torch.int64)
    nobody = replace(prepared, snapshot=replace(prepared.snapshot, new_ties=NewTies(none, none)))
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    chosen = choose_ties(model, nobody, nobody, embed(model, nobody), CONFIG, seed=0)
    assert (chosen.by_ties, chosen.new_ties, chosen.auc_pairs, chosen.auc_ties) == (False, 0, None, None)
    assert not bool(model.heads.friend.by_ties.any())


def test_where_the_labels_decide_the_sources_are_not_asked_and_nothing_changes(snapshot: Snapshot) -> None:
    """Asking them takes time with the square of a city's people, for signals that the head does not look at."""
    prepared = prepare(snapshot, size_config([snapshot], ModelConfig()))
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    embeddings, labels = embed(model, prepared), snapshot.friends
    ranker, n = Ranker(model.config, model.heads), len(labels.user_u)
    whole = ranker.people_logits(
        embeddings.people[labels.user_u], embeddings.people[labels.user_v][:, None],
        prepared.people_inputs(labels.user_u, labels.user_v)[:, None], city=prepared.users.city[labels.user_v],
        slot=torch.full((n,), SLOT_NOT_SAID), place=torch.zeros(n, model.config.d_model),
        tags=torch.zeros(n, model.config.n_tags),
    )  # fmt: skip
    prepared.forget()
    found = people_scores(ranker, embeddings, prepared)
    assert "people_sources" not in vars(prepared)
    for one, other in zip(found, whole, strict=True):
        assert torch.equal(one, other[:, 0])


def test_without_labels_nothing_is_chosen(snapshot: Snapshot) -> None:
    prepared = with_circles(snapshot)
    none = torch.zeros(0, dtype=torch.int64)
    prepared = _with_labels(prepared, FriendLabels(none, none, none.float(), none.float(), none))
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    chosen = choose_ties(model, prepared, prepared, embed(model, prepared), CONFIG, seed=0)
    assert (chosen.by_ties, chosen.auc_pairs, chosen.auc_ties) == (False, None, None)


def test_nobody_who_came_leaves_a_low_probability_that_still_rises(snapshot: Snapshot) -> None:
    prepared = with_circles(snapshot)
    labels = prepared.snapshot.friends
    prepared = _with_labels(prepared, replace(labels, attend=torch.zeros_like(labels.attend)))
    head = FriendHead(ModelConfig())
    fit_ties(head.ties, prepared.people_sources, CONFIG, seed=0)
    calibrate(head, [prepared])
    assert bool(head.by_ties.isfinite().all())
    assert bool((head.by_ties[:, 0] > 0).all())
    pairs = prepared.people_sources.pairs(labels.user_u.numpy(), labels.user_v.numpy())
    inputs = torch.cat([torch.zeros(len(pairs), D_PEOPLE_INPUT - len(PEOPLE_SIGNALS)), torch.from_numpy(pairs)], dim=1)
    zeros = torch.zeros(len(pairs), 128)
    _, attend = head(zeros, zeros, torch.zeros(len(pairs), 16), inputs)
    assert float(attend.detach().sigmoid().mean()) < 0.05


def _with_labels(prepared: Prepared, labels: FriendLabels) -> Prepared:
    out = replace(prepared, snapshot=replace(prepared.snapshot, friends=labels))
    out.__dict__["people_sources"] = prepared.people_sources
    return out
