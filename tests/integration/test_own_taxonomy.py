"""A data set with 3 categories, 7 tags and 1 vibe, from the gate to an answer; the synthetic world, folded."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from rich.console import Console

from api.app import create_app
from jobs import evaluate, materialize, publish, train, validate, verify
from jobs.report import Report
from recsys import services
from recsys.artifacts import open_artifact, versions
from recsys.errors import ArtifactError, DataError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.taxonomy import FILE, Taxonomy
from recsys.training.snapshots import take_snapshot
from tests.conftest import ROOT, free_port

SMALL = Taxonomy(("eat", "move", "see"), tuple(f"tag_{i}" for i in range(7)), (0, 1, 2, 0, 1, 2, 0), ("any",))


def folded(column: pa.ChunkedArray, width: int) -> pa.Array:
    """Weights by position → weights by position modulo `width`: all lengths shrink, all sums stay."""
    rows = np.stack(column.to_numpy()).astype(np.float64)
    out = np.zeros((len(rows), width))
    np.add.at(out.T, np.arange(rows.shape[1]) % width, rows.T)
    return pa.array(list(out.astype(np.float32)), column.type)


def fold(world: Path, landing: Path) -> None:
    """Copy a generated world, its names replaced by `SMALL`."""
    landing.mkdir(parents=True)
    for path in world.glob("*.parquet"):
        table = pq.read_table(path)
        widths = {
            "cat_pref": 3, "fine_pref": 7, "vibe_pref": 1, "category_one_hot": 3, "fine_tag_vector": 7,
        }  # fmt: skip
        for name in widths.keys() & set(table.column_names):
            values = folded(table[name], widths[name])
            table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
        if "category_ids" in table.column_names:
            ids = [[i for i, v in enumerate(row) if v > 0] for row in table["category_one_hot"].to_pylist()]
            field = table.schema.field("category_ids")
            table = table.set_column(table.column_names.index("category_ids"), field, pa.array(ids, field.type))
        pq.write_table(table, landing / path.name)
    (landing / "source.json").write_bytes((world / "source.json").read_bytes())
    (landing / FILE).write_text(json.dumps(SMALL.to_dict()))


def report(job: str, settings: Settings) -> Report:
    return Report(job, settings.reports, Console(file=StringIO()))


@pytest.fixture(scope="module")
def published(world_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("own")
    fold(world_dir, root / "data" / "landing")
    settings = Settings(
        data_dir=root / "data", redis_url=f"redis://127.0.0.1:{free_port()}/0", feature_repo=ROOT / "feature_repo",
        epochs=1,
    )  # fmt: skip
    try:
        for name, job in (("validate", validate), ("materialize", materialize), ("train", train), ("publish", publish)):
            job.run(settings, report(name, settings))
        yield settings
    finally:
        services.stop(settings.redis_url, settings.redis)


@pytest.fixture(scope="module")
def client(published: Settings):
    with TestClient(create_app(published), raise_server_exceptions=False) as made:
        yield made


def test_the_gate_takes_every_row_and_the_taxonomy(published: Settings):
    assert Lake(published.data_dir).taxonomy() == SMALL
    for table in ("users", "places"):
        landed, accepted = (pq.read_table(d / f"{table}.parquet") for d in (published.landing, published.lake))
        assert accepted.num_rows == landed.num_rows > 0


def test_widths_follow_from_the_graph_to_the_artifact(published: Settings):
    store = FeatureStore(published.feature_repo, data_dir=published.data_dir, redis_url=published.redis_url)
    try:
        with Lake(published.data_dir) as lake:
            _, end = lake.horizon()
            data = take_snapshot(lake, store, end, end).data
    finally:
        store.close()
    assert (data["user"].x.shape[1], data["place"].x.shape[1]) == (2 + 3 + 7 + 1 + 10, 2 + 3 + 7 + 6)
    artifact = open_artifact(published.artifacts, versions(published.artifacts)[-1])
    assert artifact.taxonomy == SMALL
    model = artifact.manifest["config"]["model"]
    assert (model["n_categories"], model["n_tags"], model["n_vibes"]) == (3, 7, 1)


def test_answers_speak_the_data_sets_names(client: TestClient):
    said = client.get("/taxonomy").json()
    assert {k: said[k] for k in ("categories", "tags", "vibes")} == {
        "categories": ["eat", "move", "see"], "tags": list(SMALL.tags), "vibes": ["any"],
    }  # fmt: skip
    for path, body in (("places", {"desired_categories": [2]}), ("people", {"activity_tags": [6]})):
        answer = client.post(f"/recommend/{path}", json={"user_id": 4, **body})
        assert answer.status_code == 200, answer.text
        assert answer.json()["recommendations"]
    people = client.post("/recommend/people", json={"user_id": 4}).json()["recommendations"]
    reasons = [reason for r in people for reason in r["explanations"]]
    assert reasons
    assert not any("vibe" in reason for reason in reasons), "the only one there is, everybody shares"


@pytest.mark.parametrize(
    ("path", "body", "field", "most", "got"),
    [
        ("places", {"desired_categories": [0, 3]}, "desired_categories.1", 2, 3),
        ("people", {"activity_tags": [7]}, "activity_tags.0", 6, 7),
    ],
)
def test_a_position_that_the_version_does_not_name_is_422(client: TestClient, path, body, field, most, got):
    answer = client.post(f"/recommend/{path}", json={"user_id": 4, **body})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert f"from 0 to {most}" in error["message"]
    assert f"(got {got})" in error["message"]


def test_vectors_of_another_length_online_are_an_error_that_says_so(published: Settings):
    store = FeatureStore(published.feature_repo, data_dir=published.data_dir, redis_url=published.redis_url)
    try:
        with Lake(published.data_dir) as lake, pytest.raises(DataError, match=r"must have 6 values \(got 3\)"):
            store.users([4], lake.horizon()[1])
    finally:
        store.close()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(SMALL, tags=(*SMALL.tags[:6], "renamed")),
            r"7 tags, 'tag_6' at 6; the lake has 7 tags, 'renamed' at 6",
        ),
        (  # the same width of user.x and place.x
            Taxonomy((*SMALL.categories, "more"), SMALL.tags[:6], SMALL.tag_category[:6], SMALL.vibes),
            r"3 categories; the lake has 4 categories, 'more' at 3",
        ),
    ],
)
def test_a_version_of_another_taxonomy_than_the_lakes_is_neither_measured_nor_published(
    published: Settings, other: Taxonomy, message: str
):
    path = published.lake / FILE
    before = path.read_bytes()
    path.write_text(json.dumps(other.to_dict()))
    try:
        for name, job in (("evaluate", evaluate), ("publish", publish)):
            with pytest.raises(ArtifactError, match=message):
                job.run(published, report(name, published))
    finally:
        path.write_bytes(before)


def test_another_name_makes_other_data(published: Settings):
    path = published.lake / FILE
    before = path.read_bytes()
    with Lake(published.data_dir) as lake:
        one = lake.fingerprint()
        path.write_text(json.dumps(replace(SMALL, vibes=("renamed",)).to_dict()))
        try:
            assert lake.fingerprint() != one
        finally:
            path.write_bytes(before)


def test_the_proof_knows_the_data_sets_own_widths(published: Settings):
    found = report("verify", published)
    verify.run(published, found, samples=60)
    assert found.figures["severity"] == "ok"
    assert {view: one["off"] for view, one in found.figures["parity"].items()} == dict.fromkeys(verify.VIEWS, 0)
