"""Encoders, backbone, heads and the serving ranker: shapes, contexts, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from recsys.aggregates import D_ONLINE_PLACE
from recsys.artifacts import save_artifact
from recsys.constants import C_COARSE, C_FINE, D_MODEL, SLOT_NOT_SAID
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.graph import INTERACTS, SOCIAL, Snapshot
from recsys.models import backbone
from recsys.models.backbone import Embeddings
from recsys.models.config import ModelConfig
from recsys.models.encoders import NeighborhoodTable, Standardize, UserEncoder
from recsys.models.heads import D_PEOPLE_INPUT, D_PLACE_INPUT, Heads, PlaceHead
from recsys.models.model import RecModel, combined_score
from recsys.models.ranker import MODEL, Ranker
from recsys.taxonomy import CITY
from recsys.training.evaluation import embed
from recsys.training.inputs import graph_inputs, prepare, size_config
from tests.planted import Planted


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Planted(n_users=40, n_places=50, weeks=3, visits=4).snapshot(2)


@pytest.fixture(scope="module")
def config(snapshot: Snapshot) -> ModelConfig:
    return size_config([snapshot], ModelConfig())


@pytest.fixture(scope="module")
def model(config: ModelConfig) -> RecModel:
    torch.manual_seed(0)
    return RecModel(config).eval()


def changed(snapshot: Snapshot, **tensors: torch.Tensor) -> Snapshot:
    """The snapshot with other node tensors: user_x, place_x, area_ids."""
    data = snapshot.data.clone()
    for name, value in tensors.items():
        kind, attribute = {"user_x": ("user", "x"), "place_x": ("place", "x"), "area_ids": ("user", "area_ids")}[name]
        data[kind][attribute] = value
    return replace(snapshot, data=data)


def test_sizes_come_from_the_data(snapshot: Snapshot) -> None:
    areas = snapshot.data["user"].area_ids.clone()
    areas[3, 2] = 41
    config = size_config([changed(snapshot, area_ids=areas)], ModelConfig(d_model=64))
    assert (config.n_cities, config.n_neighborhoods, config.d_model) == (2, 42, 64)


def test_vectors_are_unit_and_three_kinds_differ(snapshot: Snapshot, model: RecModel, config: ModelConfig) -> None:
    vectors = embed(model, prepare(snapshot, config))
    assert [tuple(t.shape) for t in (vectors.user, vectors.people, vectors.place)] == [(40, 128), (40, 128), (50, 128)]
    for tensor in (vectors.user, vectors.people, vectors.place):
        torch.testing.assert_close(tensor.norm(dim=1), torch.ones(len(tensor)))
    assert not torch.allclose(vectors.user, vectors.people, atol=0.1)


def test_messages_travel_two_hops_along_the_edges(snapshot: Snapshot, model: RecModel, config: ModelConfig) -> None:
    """A change of one place moves exactly the users within two hops of it, and no other."""
    graph = graph_inputs(snapshot, config)
    place_x = graph.place_x.clone()
    place_x[7, CITY.widths.place_x["popularity"][0] : CITY.widths.place_x["popularity"][1]] += 0.5
    with torch.inference_mode():
        before, after = model(graph), model(replace(graph, place_x=place_x))
    moved = ((before.user - after.user).abs().max(dim=1).values > 1e-7).nonzero()[:, 0].tolist()
    user, place = snapshot.data[INTERACTS].edge_index
    u, v = snapshot.data[SOCIAL].edge_index
    visitors = set(user[place == 7].tolist())
    two_hops = visitors | {int(b) for a, b in zip(u, v, strict=True) if int(a) in visitors}
    assert visitors
    assert set(moved) == two_hops


def test_a_step_that_makes_parts_twice_gives_the_same_bits(
    snapshot: Snapshot, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, model = graph_inputs(snapshot, config), RecModel(config).train()
    n_nodes = len(graph.user_x) + len(graph.place_x)
    found = []
    for threshold in (n_nodes + 1, n_nodes):
        monkeypatch.setattr(backbone, "RECOMPUTE_FROM", threshold)
        model.zero_grad(set_to_none=True)
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, kept: list[torch.Tensor] = kept) -> torch.Tensor:
            kept.append(tensor)
            return tensor

        torch.manual_seed(3)  # dropout
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = model(graph)
        (out.user.sum() + (out.people * out.user.detach().flip(0)).sum() + out.place.square()[:, 0].sum()).backward()
        found.append((len(kept), [out.user, *(p.grad for p in model.backbone.parameters())]))
    (many, once), (few, twice) = found
    assert few < many / 2
    assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize(
    ("tensor", "row", "column", "value", "message"),
    [
        ("user_x", 3, CITY.widths.user_x["home_city_id"][0], 2.0, r"home_city_id must lie in \[0, 2\)"),
        ("user_x", 3, CITY.widths.user_x["home_neighborhood_id"][0], -1.0, "home_neighborhood_id must lie in"),
        ("user_x", 3, CITY.widths.user_x["vibe_pref"][0], float("nan"), "user.x column 108 is not finite"),
        ("place_x", 0, CITY.widths.place_x["city_id"][0], 9.0, "place city_id must lie in"),
        ("place_x", 0, CITY.widths.place_x["price_band"][0], 5.0, r"price_band must lie in \[0, 5\)"),
        ("place_x", 0, CITY.widths.place_x["typical_time_slot"][0], 6.0, "typical_time_slot must lie in"),
        ("area_ids", 1, 0, 5, r"area_ids must lie in \[-1, 5\)"),
    ],
)
def test_ids_and_values_that_do_not_fit_are_refused(
    snapshot: Snapshot, config: ModelConfig, tensor: str, row: int, column: int, value: float, message: str
) -> None:
    data = snapshot.data
    wrong = {"user_x": data["user"].x, "place_x": data["place"].x, "area_ids": data["user"].area_ids}[tensor].clone()
    wrong[row, column] = value
    with pytest.raises(DataError, match=message):
        prepare(changed(snapshot, **{tensor: wrong}), config)


def test_features_that_are_not_finite_are_named(snapshot: Snapshot, config: ModelConfig) -> None:
    online = snapshot.place_online.clone()
    online[4, 2] = float("inf")
    with pytest.raises(DataError, match="place_online holds values that are not finite"):
        prepare(replace(snapshot, place_online=online), config)
    data = snapshot.data.clone()
    data[SOCIAL].edge_attr = data[SOCIAL].edge_attr.clone()
    data[SOCIAL].edge_attr[0, 1] = float("nan")
    with pytest.raises(DataError, match="edge feature 1 of social is not finite"):
        prepare(replace(snapshot, data=data), config)


def test_a_label_for_an_unknown_node_is_refused(snapshot: Snapshot, config: ModelConfig) -> None:
    labels = replace(snapshot.labels, place=snapshot.labels.place.clone().fill_(50))
    with pytest.raises(DataError, match=r"labels.place must lie in \[0, 50\)"):
        prepare(replace(snapshot, labels=labels), config)


def test_a_graph_without_edges_still_embeds(snapshot: Snapshot, model: RecModel, config: ModelConfig) -> None:
    data = snapshot.data.clone()
    for relation in data.edge_types:
        for name, value in list(data[relation].items()):
            data[relation][name] = value[:, :0] if name == "edge_index" else value[:0]
    vectors = embed(model, prepare(replace(snapshot, data=data), config))
    assert bool(torch.isfinite(vectors.user).all())


def test_areas_are_averaged_by_weight() -> None:
    torch.manual_seed(0)
    config = ModelConfig(n_cities=2, n_neighborhoods=3)
    encoder = UserEncoder(config, NeighborhoodTable(config)).eval()
    x = torch.zeros(2, 148)
    x[:, 0] = 1.0
    start = CITY.widths.user_x["area_freqs"][0]
    x[0, start : start + 2] = torch.tensor([0.5, 0.5])
    x[1, start : start + 2] = torch.tensor([0.5, 0.5])
    areas = torch.tensor([[0, 2, -1, -1, -1], [2, 0, -1, -1, -1]])
    same = encoder(x, areas)
    torch.testing.assert_close(same[0], same[1])
    x[1, start : start + 2] = torch.tensor([0.9, 0.1])
    assert not torch.allclose(*encoder(x, areas), atol=1e-3)


def test_one_neighborhood_number_is_another_place_in_another_city() -> None:
    table = NeighborhoodTable(ModelConfig(n_cities=3, n_neighborhoods=4))
    city, neighborhood = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    rows = table(city.reshape(-1), neighborhood.reshape(-1))
    assert len(torch.unique(rows.detach(), dim=0)) == 12
    assert not bool(table(torch.tensor([2]), torch.tensor([-1])).any())


def test_standardize() -> None:
    x = torch.randn(1000, 3) * torch.tensor([1.0, 5.0, 0.0]) + 4.0
    layer = Standardize(3)
    layer.fit(x)
    out = layer(x)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(dim=0, correction=0)[:2], torch.ones(2), atol=1e-3, rtol=0)
    assert float(layer(torch.full((1, 3), 1e6)).max()) == 8.0


def test_the_head_broadcasts_users_over_candidates(config: ModelConfig) -> None:
    torch.manual_seed(0)
    head = PlaceHead(config).eval()
    u, p = torch.randn(3, D_MODEL), torch.randn(3, 5, D_MODEL)
    ctx, online = torch.randn(3, 16), torch.rand(3, 5, D_PLACE_INPUT)
    together = head(u[:, None], p, ctx[:, None], online)
    alone = torch.stack([torch.stack([head(u[i], p[i, j], ctx[i], online[i, j]) for j in range(5)]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_place_head_is_the_mean_of_members_that_are_networks_of_their_own(config: ModelConfig) -> None:
    torch.manual_seed(0)
    head = PlaceHead(replace(config, members=3)).eval()
    nn.init.normal_(head.wide.weight)
    u, p, ctx, inputs = (torch.randn(4, 5, d) for d in (D_MODEL, D_MODEL, 16, D_PLACE_INPUT))
    shallow = head.shallow(u, p, inputs)
    alone = []
    for k in range(3):
        network, line = _member(head, k)
        alone.append((network(torch.cat([shallow, ctx], dim=-1)) + line(shallow))[..., 0])
    torch.testing.assert_close(head.members(u, p, ctx, inputs), torch.stack(alone), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(u, p, ctx, inputs), torch.stack(alone).mean(dim=0), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=0.1), "members start apart"


def test_a_committee_of_one_is_one_network(config: ModelConfig) -> None:
    torch.manual_seed(0)
    head = PlaceHead(replace(config, members=1)).eval()
    u, p, ctx, inputs = (torch.randn(4, d) for d in (D_MODEL, D_MODEL, 16, D_PLACE_INPUT))
    shallow = head.shallow(u, p, inputs)
    network, line = _member(head, 0)
    expected = network(torch.cat([shallow, ctx], dim=-1)) + line(shallow)
    torch.testing.assert_close(head(u, p, ctx, inputs), expected[:, 0], atol=1e-5, rtol=1e-5)


def test_a_member_learns_as_if_it_were_alone(config: ModelConfig) -> None:
    """No gradient of one member's loss reaches another."""
    torch.manual_seed(0)
    head = PlaceHead(replace(config, members=3)).eval()
    head.use([])
    u, p, ctx, inputs = (torch.randn(4, d) for d in (D_MODEL, D_MODEL, 16, D_PLACE_INPUT))
    head.members(u, p, ctx, inputs)[1].sum().backward()
    for weight in (*head.narrow.parameters(), head.wide.weight):
        assert weight.grad is not None
        assert [bool(part.any()) for part in weight.grad] == [False, True, False]


def _member(head: PlaceHead, k: int) -> tuple[nn.Sequential, nn.Linear]:
    """A member's narrow network and its line, as plain layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(head.narrow.weights, head.narrow.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[2])
        layer.weight.data, layer.bias.data = weight[k].t(), bias[k, 0]
        layers += [layer, nn.ReLU()]
    line = nn.Linear(head.wide.in_features, 1, bias=False)
    line.weight.data = head.wide.weight[k : k + 1]
    return nn.Sequential(*layers[:-1]), line


@pytest.mark.parametrize("part", PlaceHead.MAY_USE)
def test_what_the_head_does_not_use_changes_nothing(config: ModelConfig, part: str) -> None:
    torch.manual_seed(0)
    head = PlaceHead(config).eval()
    nn.init.normal_(head.wide.weight)
    u, p, ctx, inputs = (torch.randn(4, d) for d in (D_MODEL, D_MODEL, 16, D_PLACE_INPUT))
    other = inputs.clone()
    other[:, :D_ONLINE_PLACE] += 1.0
    changed = {"counters": (u, p, ctx, other), "cosine": (-u, p, ctx, inputs)}
    used = [one for one in PlaceHead.MAY_USE if one == part]
    for uses, differs in ((used, True), ([], False)):
        head.use(uses)
        assert (not torch.allclose(head(u, p, ctx, inputs), head(*changed[part]))) == differs
        assert head.reads == " + ".join(["sources", *uses])


def test_many_candidates_of_one_user_score_as_each_alone(config: ModelConfig) -> None:
    """For one query the trunk folds two products of matrices into one; for a few candidates it does not."""
    heads, rng = Heads(config), np.random.default_rng(5)
    ranker = Ranker(config, heads)
    vectors = rng.normal(size=(301, D_MODEL))
    user, *others = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    others = np.stack(others)
    inputs = rng.random((300, D_PEOPLE_INPUT)).astype(np.float32)
    whole = ranker.score_people(user, others, inputs, city_id=0, slot=1)
    few = [slice(i, i + 50) for i in range(0, 300, 50)]
    alone = [ranker.score_people(user, others[at], inputs[at], city_id=0, slot=1) for at in few]
    for got, expected in zip(whole, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(got, np.concatenate(expected), atol=1e-6)
        assert np.ptp(got) > 1e-3


def test_combined_score() -> None:
    assert combined_score(torch.tensor(1.0), torch.tensor(0.0)).item() == pytest.approx(0.7)
    ranker_score = Ranker(ModelConfig(alpha=0.25), RecModel(ModelConfig()).heads).combine(
        np.array([0.8], dtype=np.float32), np.array([0.4], dtype=np.float32)
    )
    assert ranker_score == pytest.approx([0.25 * 0.8 + 0.75 * 0.4])


def test_config_round_trip_and_refusals() -> None:
    config = ModelConfig(n_cities=3, head_hidden=(64, 32))
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown model fields"):
        ModelConfig.from_dict({"n_citys": 3})
    fewer = ModelConfig(messages=("social",), inputs=(), gate_hidden=0)
    assert ModelConfig.from_dict(json.loads(json.dumps(fewer.to_dict()))) == fewer
    with pytest.raises(ConfigError, match=r"messages must be of .* \(got 'sozial'\)"):
        ModelConfig(messages=("sozial",))
    with pytest.raises(ConfigError, match=r"inputs must be of .* \(got 'offline'\)"):
        ModelConfig(inputs=("offline",))
    with pytest.raises(ConfigError, match="gate_hidden must be at least 0"):
        ModelConfig(gate_hidden=-1)
    for name in ("n_layers", "members"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
            ModelConfig(**{name: 0})
    with pytest.raises(ConfigError, match="aggregation must be one of"):
        ModelConfig(aggregation="max")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- ranker
@pytest.fixture(scope="module")
def request_inputs(
    snapshot: Snapshot, model: RecModel, config: ModelConfig
) -> tuple[Embeddings, np.ndarray, np.ndarray]:
    prepared = prepare(snapshot, config)
    places, peers = prepared.places.of(0)[:12], torch.arange(1, 13)
    user = torch.zeros(12, dtype=torch.int64)
    signals = prepared.sources.signals(prepared.sources.ask(np.array([0]), 0), np.arange(12)[None])[0]
    fits = prepared.traits.fits(prepared.stated(user[:1]), 0, places[None].numpy())[0]
    inputs = np.concatenate([snapshot.place_features(user, places).numpy(), fits, signals], axis=1)
    return embed(model, prepared), inputs, prepared.people_inputs(user, peers).numpy()


def test_ranker_from_an_artifact_scores_as_the_model(
    tmp_path: Path, model: RecModel, config: ModelConfig, request_inputs: tuple[Embeddings, np.ndarray, np.ndarray]
) -> None:
    vectors, online, tie = request_inputs
    tables = {"users": pa.table({"user_id": [1]})}
    artifact = save_artifact(
        tmp_path, "v1", {"config": {"model": config.to_dict()}}, tables=tables, tensors={MODEL: model.state_dict()}
    )
    loaded, direct = Ranker.load(artifact), Ranker(config, model.heads)
    user, places = vectors.user[0].numpy(), vectors.place[:12].numpy()
    for ranker in (loaded, direct):
        scores = ranker.score_places(user, places, online, city_id=0, slot=3, categories=[2])
        with torch.inference_mode():
            ctx = model.heads.place_context(torch.tensor([0]), torch.tensor([3]), torch.eye(C_COARSE)[[2]])
            expected = model.heads.place(vectors.user[:1], vectors.place[:12], ctx, torch.from_numpy(online))
        np.testing.assert_allclose(scores, expected.sigmoid().numpy(), rtol=1e-5, atol=1e-6)
    people, peers = vectors.people[0].numpy(), vectors.people[1:13].numpy()
    compat, attend = loaded.score_people(people, peers, tie, city_id=1, slot=SLOT_NOT_SAID)
    assert compat.shape == attend.shape == (12,)
    assert ((compat > 0) & (compat < 1)).all()
    again = direct.score_people(people, peers, tie, city_id=1, slot=SLOT_NOT_SAID)
    np.testing.assert_allclose(again[0], compat, rtol=1e-5)


def test_every_part_of_a_context_counts(
    model: RecModel, config: ModelConfig, request_inputs: tuple[Embeddings, np.ndarray, np.ndarray]
) -> None:
    vectors, online, tie = request_inputs
    ranker = Ranker(config, model.heads)
    user, places = vectors.user[0].numpy(), vectors.place[:12].numpy()
    plain = ranker.score_places(user, places, online, city_id=0, slot=SLOT_NOT_SAID, categories=[])
    for city, slot, categories in ((1, SLOT_NOT_SAID, []), (0, 2, []), (0, SLOT_NOT_SAID, [3])):
        other = ranker.score_places(user, places, online, city_id=city, slot=slot, categories=categories)
        assert np.abs(other - plain).max() > 1e-5
    people, peers = vectors.people[0].numpy(), vectors.people[1:13].numpy()
    _, alone = ranker.score_people(people, peers, tie, city_id=0, slot=SLOT_NOT_SAID, place=None, tags=[])
    for place, tags in ((places[4], []), (None, [5, 17])):
        _, other = ranker.score_people(people, peers, tie, city_id=0, slot=SLOT_NOT_SAID, place=place, tags=tags)
        assert np.abs(other - alone).max() > 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"city_id": 2}, r"city_id must lie in \[0, 2\)"),
        ({"slot": 7}, r"slot must lie in \[0, 6\]"),
        ({"categories": [6]}, r"category must lie in \[0, 6\)"),
        ({"online": np.zeros((12, 3), dtype=np.float32)}, "online features must have shape"),
        ({"online": np.full((12, D_PLACE_INPUT), np.nan, dtype=np.float32)}, "online features must be finite"),
        ({"places": np.zeros((12, 5), dtype=np.float32)}, "candidates must have shape"),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    model: RecModel, config: ModelConfig, change: dict[str, object], message: str
) -> None:
    zeros = np.zeros((12, D_MODEL), dtype=np.float32)
    arguments = {
        "user": zeros[0], "places": zeros, "online": np.zeros((12, D_PLACE_INPUT), dtype=np.float32),
        "city_id": 0, "slot": 0, "categories": [],
    }  # fmt: skip
    with pytest.raises(DataError, match=message):
        Ranker(config, model.heads).score_places(**(arguments | change))  # type: ignore[arg-type]


def test_people_requests_that_do_not_fit_are_refused(model: RecModel, config: ModelConfig) -> None:
    zeros = np.zeros((3, D_MODEL), dtype=np.float32)
    inputs = np.zeros((3, D_PEOPLE_INPUT), dtype=np.float32)
    ranker = Ranker(config, model.heads)
    with pytest.raises(DataError, match=r"tag must lie in \[0, 100\)"):
        ranker.score_people(zeros[0], zeros, inputs, city_id=0, slot=0, tags=[C_FINE])
    with pytest.raises(DataError, match="place must have shape"):
        ranker.score_people(zeros[0], zeros, inputs, city_id=0, slot=0, place=zeros)


def test_no_candidates_no_scores(model: RecModel, config: ModelConfig) -> None:
    empty = np.zeros((0, D_MODEL), dtype=np.float32)
    scores = Ranker(config, model.heads).score_places(
        np.zeros(D_MODEL, dtype=np.float32), empty, np.zeros((0, D_PLACE_INPUT), dtype=np.float32), city_id=0, slot=0
    )
    assert scores.shape == (0,)


def test_an_artifact_that_does_not_fit_is_refused(tmp_path: Path, model: RecModel, config: ModelConfig) -> None:
    tensors = {MODEL: {k: v for k, v in model.state_dict().items() if "heads.place.wide" not in k}}
    artifact = save_artifact(tmp_path, "v1", {"config": {"model": config.to_dict()}}, tables={}, tensors=tensors)
    with pytest.raises(ArtifactError, match="does not fit this code's heads"):
        Ranker.load(artifact)
    artifact = save_artifact(tmp_path, "v2", {"config": {}}, tables={}, tensors={MODEL: model.state_dict()})
    with pytest.raises(ArtifactError, match="no usable model config"):
        Ranker.load(artifact)


def test_a_version_from_before_the_committee_is_refused(tmp_path: Path, model: RecModel, config: ModelConfig) -> None:
    """Its place head had one network, under other names, and its configuration no number of members."""
    narrow = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Dropout(), nn.Linear(2, 1))
    before = {k: v for k, v in model.state_dict().items() if "heads.place.narrow" not in k}
    before |= {f"heads.place.narrow.{k}": v for k, v in narrow.state_dict().items()}
    known = {k: v for k, v in config.to_dict().items() if k != "members"}
    artifact = save_artifact(tmp_path, "v1", {"config": {"model": known}}, tables={}, tensors={MODEL: before})
    with pytest.raises(ArtifactError, match="version v1 does not fit this code's heads"):
        Ranker.load(artifact)
