"""A part that is left out has no say, and nothing else changes."""

import dataclasses

import numpy as np
import pytest
import torch

from recsys.aggregates import D_ONLINE_PLACE
from recsys.constants import D_MODEL
from recsys.models.backbone import GraphInputs
from recsys.models.config import ModelConfig
from recsys.models.heads import D_PLACE_INPUT, FriendHead, PlaceHead
from recsys.models.model import RecModel
from recsys.training.ablation import VARIANTS, WHOLE, Ablated, differences, markdown, variant_config
from recsys.training.config import TrainConfig
from recsys.training.inputs import prepare, size_config
from tests.planted import Planted

SMALL = ModelConfig(head_hidden=(32, 16))


@pytest.fixture(scope="module")
def graph() -> GraphInputs:
    snapshot = Planted(n_users=40, n_places=50, weeks=4, visits=5).snapshot(3)
    return prepare(snapshot, size_config([snapshot], SMALL)).graph


def model(**changes: object) -> RecModel:
    torch.manual_seed(0)
    return RecModel(dataclasses.replace(SMALL, **changes)).eval()  # type: ignore[arg-type]


def other_pairs(graph: GraphInputs) -> GraphInputs:
    return dataclasses.replace(graph, pair_features=torch.rand(graph.pair_features.shape))


def other_ties(graph: GraphInputs) -> GraphInputs:
    return dataclasses.replace(graph, tie_features=torch.rand(graph.tie_features.shape))


@torch.no_grad()
def test_what_carries_no_message_is_not_heard(graph: GraphInputs) -> None:
    whole, alone = model(), model(messages=("interacts", "rev_interacts"))
    assert not torch.equal(whole(graph).user, whole(other_ties(graph)).user), "friends are heard where they may speak"
    assert torch.equal(alone(graph).user, alone(other_ties(graph)).user)
    social = model(messages=("social",))
    assert torch.equal(social(graph).place, social(other_pairs(graph)).place)
    assert torch.equal(social(graph).user, social(other_pairs(graph)).user)
    assert not torch.equal(social(graph).user, social(other_ties(graph)).user)
    silent = model(messages=())
    assert torch.equal(silent(graph).people, silent(other_ties(other_pairs(graph))).people)


@torch.no_grad()
def test_without_gates_every_edge_weighs_the_same(graph: GraphInputs) -> None:
    plain = model(gate_hidden=0)
    assert torch.equal(plain(graph).user, plain(other_pairs(other_ties(graph))).user)
    assert not any("gates" in name for name, _ in plain.named_parameters())
    gated = model()
    for gates in (gated.backbone.pair_gates, gated.backbone.tie_gates):
        torch.nn.init.zeros_(gates.out.weight)  # softplus of the bias is 1
    weights = {k: v for k, v in gated.state_dict().items() if "gates" not in k}
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(graph).user, gated(graph).user, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("inputs", [("online",), ("sources",), ()])
def test_a_head_does_not_read_what_it_is_not_given(inputs: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, inputs=inputs)
    place, friend = PlaceHead(config).eval(), FriendHead(config).eval()
    torch.nn.init.normal_(place.wide.weight)
    u, v, context = torch.randn(4, D_MODEL), torch.randn(4, D_MODEL), torch.randn(4, config.d_context)
    said = torch.rand(4, D_PLACE_INPUT)
    online, sources = said.clone(), said.clone()
    online[:, :D_ONLINE_PLACE] += 1.0
    sources[:, D_ONLINE_PLACE:] += 1.0
    assert torch.equal(place(u, v, context, said), place(u, v, context, online)) == ("online" not in inputs)
    assert torch.equal(place(u, v, context, said), place(u, v, context, sources)) == ("sources" not in inputs)
    pair = torch.rand(4, friend.shallow.standardize.mean.shape[0])
    same = torch.equal(friend(u, v, context, pair)[0], friend(u, v, context, pair + 1.0)[0])
    assert same == ("online" not in inputs)


def test_every_variant_is_the_base_but_for_one_thing_and_can_be_built() -> None:
    base = TrainConfig(seed=7, epochs=3)
    seen = set()
    for name, parts in VARIANTS.items():
        config = variant_config(base, name)
        whole, changed = base.to_dict(), config.to_dict()
        assert {part for part in whole if whole[part] != changed[part]} == set(parts), name
        seen.add(repr(changed))
        RecModel(config.model)
    assert len(seen) == len(VARIANTS)
    assert variant_config(base, WHOLE) == base


def ablated(variant: str, ndcg: list[float], **changes: object) -> Ablated:
    values = np.array(ndcg)
    one = Ablated(variant, "r", "sources", float(values.mean()), 0.5, 0.2, 0.9, None, 0.1, None, np.arange(4), values)
    return dataclasses.replace(one, **changes)  # type: ignore[arg-type]


def test_a_variant_is_compared_with_the_whole_on_the_same_users() -> None:
    found = [ablated(WHOLE, [0.1, 0.2, 0.3, 0.4]), ablated("no edge gates", [0.0, 0.1, 0.2, 0.3])]
    minus = differences(found)
    assert minus == {"no edge gates": pytest.approx({"mean": -0.1, "low": -0.1, "high": -0.1})}
    lines = markdown(found, "Some world").splitlines()
    assert lines[0] == "Some world: validation window, 4 users."
    assert lines[-2] == f"| {WHOLE} | 0.2500 |  | 0.2000 | 0.9000 | – | sources |"
    assert lines[-1] == "| no edge gates | 0.1500 | -0.1000 (-0.1000 to -0.1000) | 0.2000 | 0.9000 | – | sources |"
