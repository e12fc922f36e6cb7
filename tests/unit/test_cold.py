"""Fold-in: a newcomer gets a vector from features and a few edges, and nobody else's changes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.graph import INTERACTS, REV_INTERACTS, SOCIAL, Past, Snapshot
from recsys.models.backbone import GraphInputs, States
from recsys.models.config import ModelConfig
from recsys.models.fold_in import NewPlaces, NewUsers, fold_in_places, fold_in_users
from recsys.models.model import RecModel
from recsys.models.sparse import Relation
from recsys.training.cold import Newcomers, folded, measure_cold
from recsys.training.evaluation import embed
from recsys.training.inputs import Prepared, prepare, size_config
from tests.planted import Planted

COLD = 5  # the last users and places are new


def without_the_last(snapshot: Snapshot, n: int) -> Snapshot:
    """The same moment, as if the last n users and places had not been there."""
    data = snapshot.data.clone()
    n_users, n_places = len(data["user"].x) - n, len(data["place"].x) - n
    for kind, size in (("user", n_users), ("place", n_places)):
        for name in list(data[kind].keys()):
            data[kind][name] = data[kind][name][:size]
    for relation, sizes in (
        (INTERACTS, (n_users, n_places)), (REV_INTERACTS, (n_places, n_users)), (SOCIAL, (n_users, n_users))
    ):  # fmt: skip
        index = data[relation].edge_index
        keep = (index[0] < sizes[0]) & (index[1] < sizes[1])
        for name in list(data[relation].keys()):
            data[relation][name] = (
                data[relation][name][..., keep] if name == "edge_index" else data[relation][name][keep]
            )
    there = (snapshot.pair_keys // (n_places + n) < n_users) & (snapshot.pair_keys % (n_places + n) < n_places)
    user, place = snapshot.pair_keys[there] // (n_places + n), snapshot.pair_keys[there] % (n_places + n)
    none = torch.zeros(0, dtype=torch.int64)
    return replace(
        snapshot,
        data=data,
        user_online=snapshot.user_online[:n_users],
        place_online=snapshot.place_online[:n_places],
        pair_keys=user * n_places + place,
        pair_online=snapshot.pair_online[there],
        past=Past(user * n_places + place, snapshot.past.count[there], snapshot.past.age_days[there]),
        tie_keys=none,
        tie_online=snapshot.tie_online[:0],
        labels=replace(snapshot.labels, user=none, place=none, rating=none.float(), slot=none),
        friends=replace(snapshot.friends, **{f: getattr(snapshot.friends, f)[:0] for f in FRIENDS}),
        companions=replace(snapshot.companions, **{f: getattr(snapshot.companions, f)[:0] for f in COMPANIONS}),
    )


FRIENDS = ("user_u", "user_v", "compat", "attend", "slot")
COMPANIONS = ("user_u", "user_v", "place", "slot")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Planted(n_users=60, n_places=70, weeks=5, visits=6).snapshot(3)


@pytest.fixture(scope="module")
def after(snapshot: Snapshot) -> Prepared:
    return prepare(snapshot, size_config([snapshot], ModelConfig(head_hidden=(32, 16))))


@pytest.fixture(scope="module")
def before(snapshot: Snapshot, after: Prepared) -> Prepared:
    return prepare(without_the_last(snapshot, COLD), size_config([snapshot], ModelConfig(head_hidden=(32, 16))))


@pytest.fixture(scope="module")
def model(snapshot: Snapshot, after: Prepared) -> RecModel:
    torch.manual_seed(0)
    model = RecModel(size_config([snapshot], ModelConfig(head_hidden=(32, 16)))).eval()
    model.backbone.fit_scales(after.graph)
    for gates in (model.backbone.pair_gates, model.backbone.tie_gates):
        torch.nn.init.normal_(gates.out.weight)  # so that it matters which gate is whose
    return model


@torch.no_grad()
def states(model: RecModel, graph: GraphInputs) -> States:
    return model.backbone.states(graph)


def edges_to(index: Tensor, features: Tensor, target: int, n_source: int) -> tuple[Relation, Tensor]:
    """All edges that arrive at one node."""
    keep = index[1] == target
    ends = torch.stack([index[0][keep], torch.zeros(int(keep.sum()), dtype=torch.int64)])
    return Relation.from_edges(ends, n_source, 1), features[:, keep].contiguous()


@pytest.mark.parametrize("node", [0, 17, 59])
def test_a_known_node_with_all_its_edges_is_folded_onto_itself(model: RecModel, after: Prepared, node: int) -> None:
    graph, data, own = after.graph, after.snapshot.data, embed(model, after)
    known = states(model, graph)
    visits = data[INTERACTS].edge_index
    pairs, pair_features = edges_to(visits.flip(0), graph.pair_features, node, len(graph.place_x))
    ties, tie_features = edges_to(data[SOCIAL].edge_index, graph.tie_features, node, len(graph.user_x))
    one = slice(node, node + 1)
    new = NewUsers(graph.user_x[one], graph.area_ids[one], pairs, pair_features, ties, tie_features)
    user, people = fold_in_users(model.backbone, known, new)
    torch.testing.assert_close(user, own.user[one], atol=1e-5, rtol=0)
    torch.testing.assert_close(people, own.people[one], atol=1e-5, rtol=0)
    came, came_features = edges_to(visits, graph.pair_features, node, len(graph.user_x))
    place = fold_in_places(model.backbone, known, NewPlaces(graph.place_x[one], came, came_features))
    torch.testing.assert_close(place, own.place[one], atol=1e-5, rtol=0)
    # and what it hears matters
    few = edges_to(visits.flip(0)[:, :0], graph.pair_features[:, :0], node, len(graph.place_x))
    alone, _ = fold_in_users(
        model.backbone, known, NewUsers(graph.user_x[one], graph.area_ids[one], *few, ties, tie_features)
    )
    assert float((alone - own.user[one]).abs().max()) > 1e-3


def test_newcomers_change_nobody_else(model: RecModel, before: Prepared, after: Prepared) -> None:
    new = Newcomers.between(before, after)
    assert (new.user < 0).nonzero()[:, 0].tolist() == list(range(55, 60))
    assert (new.place < 0).nonzero()[:, 0].tolist() == list(range(65, 70))
    was, now = embed(model, before), folded(model, before, after, new)
    assert torch.equal(now.user[:55], was.user)
    assert torch.equal(now.people[:55], was.people)
    assert torch.equal(now.place[:65], was.place)
    for vectors in (now.user, now.people, now.place):
        assert bool(((vectors.norm(dim=1) - 1).abs() < 1e-5).all())
    whole = embed(model, after)
    assert not torch.equal(whole.place[:65], was.place), "a pass over the whole graph would have changed others"


def test_newcomers_are_folded_in_each_on_their_own(model: RecModel, before: Prepared, after: Prepared) -> None:
    """One newcomer's edges are not another's, and those between two newcomers are not heard."""
    new = Newcomers.between(before, after)
    together = folded(model, before, after, new)
    data, graph = after.snapshot.data, after.graph
    user, place = data[INTERACTS].edge_index
    known = states(model, before.graph)
    for node in range(55, 60):
        keep = (user == node) & (place < 65)
        ends = torch.stack([place[keep], torch.zeros(int(keep.sum()), dtype=torch.int64)])
        pairs = Relation.from_edges(ends, 65, 1)
        source, target = data[SOCIAL].edge_index
        met = (target == node) & (source < 55)
        ties = Relation.from_edges(torch.stack([source[met], torch.zeros(int(met.sum())).long()]), 55, 1)
        one = slice(node, node + 1)
        vector, people = fold_in_users(
            model.backbone,
            known,
            NewUsers(
                graph.user_x[one], graph.area_ids[one], pairs, graph.pair_features[:, keep].contiguous(), ties,
                graph.tie_features[:, met].contiguous(),
            ),
        )  # fmt: skip
        torch.testing.assert_close(together.user[one], vector, atol=1e-5, rtol=0)
        torch.testing.assert_close(together.people[one], people, atol=1e-5, rtol=0)


def test_features_alone_are_enough_and_three_events_say_more(
    model: RecModel, before: Prepared, after: Prepared
) -> None:
    new = Newcomers.between(before, after)
    bare = folded(model, before, after, new, edges=False)
    graph = after.graph
    nobody = Relation.from_edges(torch.zeros(2, 0, dtype=torch.int64), 65, 1)
    stranger = Relation.from_edges(torch.zeros(2, 0, dtype=torch.int64), 55, 1)
    no_pairs, no_ties = graph.pair_features[:, :0], graph.tie_features[:, :0]
    known, one = states(model, before.graph), slice(57, 58)

    def vector(pairs: Relation, features: Tensor) -> Tensor:
        x, areas = graph.user_x[one], graph.area_ids[one]
        return fold_in_users(model.backbone, known, NewUsers(x, areas, pairs, features, stranger, no_ties))[0]

    torch.testing.assert_close(bare.user[one], vector(nobody, no_pairs), atol=1e-6, rtol=0)
    three = Relation.from_edges(torch.tensor([[3, 8, 40], [0, 0, 0]]), 65, 1)
    assert float((vector(three, graph.pair_features[:, :3]) - bare.user[one]).abs().max()) > 1e-3


def test_what_others_did_after_the_cut_changes_no_known_vector(
    model: RecModel, before: Prepared, snapshot: Snapshot
) -> None:
    later = Planted(n_users=60, n_places=70, weeks=5, visits=6).snapshot(4)
    after = prepare(later, before_config(snapshot))
    new = Newcomers.between(before, after)
    now, was = folded(model, before, after, new), embed(model, before)
    assert torch.equal(now.user[:55], was.user)
    assert torch.equal(now.place[:65], was.place)


def before_config(snapshot: Snapshot) -> ModelConfig:
    return size_config([snapshot], ModelConfig(head_hidden=(32, 16)))


def test_only_the_cold_are_measured(model: RecModel, before: Prepared, after: Prepared) -> None:
    found = measure_cold(model, before, after)
    labels = after.snapshot.labels
    liked = labels.rating >= 3.5
    home = after.users.city[labels.user] == after.places.city[labels.place]
    users = torch.unique(labels.user[liked & home & (labels.user >= 55)]).tolist()
    assert sorted(found["users"].user_id.tolist()) == users
    fans = torch.unique(labels.user[liked & home & (labels.place >= 65)])
    assert found["places"].users == len(fans)
    wanted = {"model", "popularity", "vectors, features only", "vectors, folded in", "vectors, whole graph"}
    assert wanted <= set(found["users"].rows)
    assert found["users"].friend_auc is None
    assert measure_cold(model, after, after) == {}


def test_whom_the_later_snapshot_lost_is_named(before: Prepared, after: Prepared) -> None:
    with pytest.raises(DataError, match=r"user 55 was known at 2024-01-22 .* and is not any more"):
        Newcomers.between(after, before)
