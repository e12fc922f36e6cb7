"""Fitted sources as tensors and back: what they say stays the same, bit by bit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.artifacts import save_artifact
from recsys.constants import D_MODEL
from recsys.errors import ArtifactError
from recsys.models.backbone import Embeddings
from recsys.models.config import ModelConfig
from recsys.recommend.catalogue import Catalogue
from recsys.recommend.facets import FACETS
from recsys.sources import NEAR, PLACE_SIGNALS, SOURCES, Memory, PlaceSources
from recsys.sources import places as fitting
from recsys.training.inputs import prepare, size_config
from recsys.training.lists import city_lists
from tests.parts import traits
from tests.planted import Planted

N_USERS, N_PLACES = 40, 60


def make(rng: np.random.Generator, n_pairs: int = 300) -> PlaceSources:
    """Three cities, the second of them without a place, nodes in mixed order; two places of two categories."""
    keys = rng.choice(N_USERS * N_PLACES, n_pairs, replace=False)
    pairs = keys // N_PLACES, keys % N_PLACES
    u = np.arange(N_USERS)
    ties = np.concatenate([u, (u + 3) % N_USERS]), np.concatenate([(u + 3) % N_USERS, u])
    categories = np.eye(6, dtype=np.float32)[rng.integers(6, size=N_PLACES)]
    categories[:2] = 1
    count, age = rng.integers(1, 9, n_pairs), rng.uniform(0, 200, n_pairs)
    tags, city = rng.integers(2, size=(N_PLACES, 11)).astype(np.float32), rng.choice([0, 2], N_PLACES)
    return PlaceSources(Memory.of(pairs, count, age, ties, city, traits(categories, tags), N_USERS))


@pytest.mark.parametrize("n_pairs", [300, 0])
def test_what_the_sources_say_survives_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_pairs: int):
    rng = np.random.default_rng(0)
    before = make(rng, n_pairs)
    artifact = save_artifact(tmp_path, "v1", {}, tables={}, tensors={SOURCES: before.tensors()})
    monkeypatch.setattr(fitting, "item_models", lambda *_: pytest.fail("fitted again"))
    monkeypatch.setattr(fitting.Latent, "fit", lambda *_: pytest.fail("fitted again"))
    after = PlaceSources.load(artifact.tensors(SOURCES))
    users = np.arange(N_USERS)
    for city in (0, 2):
        n = len(before.members(city))
        np.testing.assert_array_equal(after.members(city), before.members(city))
        near = np.stack([rng.permutation(n)[:7] for _ in users])
        said = [sources.ask(users, city) for sources in (before, after)]
        for name, values in said[0].named.items():
            np.testing.assert_array_equal(said[1].named[name], values, err_msg=name)
        for name in ("cosine", "age", "latent", "user"):
            np.testing.assert_array_equal(getattr(said[1], name), getattr(said[0], name), err_msg=name)
        for one, other in zip((*said[0].kinds, *said[0].alike), (*said[1].kinds, *said[1].alike), strict=True):
            np.testing.assert_array_equal(other, one)
        found = [x.candidates(y, 20, near) for x, y in zip((before, after), said, strict=True)]
        np.testing.assert_array_equal(found[1][0], found[0][0])
        np.testing.assert_array_equal(found[1][1], found[0][1])
        signals = [x.signals(y, found[0][0]) for x, y in zip((before, after), said, strict=True)]
        np.testing.assert_array_equal(signals[1], signals[0])
        assert (n_pairs == 0) == (not said[0].named["own"].any())
    assert len(after.members(1)) == 0
    again = after.tensors()
    assert again.keys() == before.tensors().keys()
    for name, tensor in before.tensors().items():
        assert tensor.dtype == again[name].dtype
        assert bool((tensor == again[name]).all()), name


@pytest.mark.parametrize("missing", ["city", "counts.data", "ages", "friends.indptr", "ease.indices", "tags", "latent"])
def test_tensors_that_are_not_all_there_are_refused(missing: str):
    tensors = make(np.random.default_rng(2)).tensors()
    del tensors[missing]
    with pytest.raises(ArtifactError, match="no tensors of the sources"):
        PlaceSources.load(tensors)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("ages", 1),
        ("categories", 1),
        ("tags", 1),
        ("latent", 1),
        ("similar.indptr", 1),
        ("counts.indptr", 1),
        ("friends.data", 1),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(name: str, cut: int):
    tensors = make(np.random.default_rng(2)).tensors()
    tensors[name] = tensors[name][:-cut]
    with pytest.raises(ArtifactError, match="no tensors of the sources"):
        PlaceSources.load(tensors)


def test_an_index_out_of_range_is_refused():
    tensors = make(np.random.default_rng(2)).tensors()
    tensors["ease.indices"][0] = N_PLACES
    with pytest.raises(ArtifactError, match="no tensors of the sources"):
        PlaceSources.load(tensors)


def test_a_request_reads_what_training_read():
    """The same user, city and vectors: the lists that the head learnt from, and those of a request, are the same."""
    snapshot = Planted(n_users=40, n_places=50, weeks=3, visits=4).snapshot(2)
    prepared = prepare(snapshot, size_config([snapshot], ModelConfig()))
    vectors = torch.nn.functional.normalize(torch.randn(90, D_MODEL, generator=torch.Generator().manual_seed(0)), dim=1)
    embeddings = Embeddings(vectors[:40], vectors[:40], vectors[40:])
    ids = prepared.snapshot.data["place"].place_id.numpy()
    table = pa.table(
        {
            "place_id": ids, "index": range(50), "city_id": prepared.places.city.numpy(),
            "embedding": list(embeddings.place.numpy()),
            **{facet: [0] * 50 for facet in FACETS},
        }
    )  # fmt: skip
    catalogue = Catalogue(PlaceSources.load(prepared.sources.tensors()), table, 40)
    for city in range(len(prepared.places.sizes())):
        members = prepared.places.of(city)
        for node in (0, 3, 17):
            lists = city_lists(prepared, embeddings, torch.tensor([node]), city, 15)
            place, inputs = lists.inputs(prepared)
            near = (embeddings.place[members] @ embeddings.user[node]).argsort(descending=True)[:NEAR]
            nothing = np.zeros(len(members), dtype=bool)
            found = catalogue.find(node, city, ids[members[near]], 15, without=nothing, fresh=False)
            order, expected = np.argsort(found.ids), np.argsort(ids[place[0]])
            np.testing.assert_array_equal(found.ids[order], ids[place[0]][expected])
            np.testing.assert_array_equal(found.vectors[order], embeddings.place[place[0]].numpy()[expected])
            signals = inputs[0, :, -len(PLACE_SIGNALS) :].numpy()
            np.testing.assert_array_equal(catalogue.signals(found)[order], signals[expected])
