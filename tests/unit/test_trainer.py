"""Training: it learns, it stops, it resumes exactly, it refuses what it cannot learn from."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from recsys.artifacts import save_artifact
from recsys.constants import D_MODEL
from recsys.errors import ConfigError, DataError
from recsys.graph import Companions, FriendLabels, PlaceLabels, Snapshot
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.models.ranker import Ranker
from recsys.training import trainer
from recsys.training.checkpoint import load_checkpoint
from recsys.training.config import Progress, TrainConfig
from recsys.training.evaluation import embed, evaluate
from recsys.training.export import PLACES_SCHEMA, USERS_SCHEMA, export
from recsys.training.inputs import prepare
from recsys.training.objective import StepConfig
from recsys.training.ranking import RankConfig, RankProgress, Window, fit_head
from recsys.training.trainer import Fitted, fit
from tests.planted import Planted

SMALL = TrainConfig(
    model=ModelConfig(head_hidden=(32, 16)),
    step=StepConfig(positives=256, friends=256, companions=64),
    rank=RankConfig(epochs=2, candidates=40, length=20, batch=16),
    epochs=3,
    steps_per_epoch=4,
    warmup_steps=2,
    threads=1,
)


@pytest.fixture(scope="module")
def world() -> Planted:
    return Planted(n_users=50, n_places=60, weeks=5, visits=5)


@pytest.fixture(scope="module")
def train(world: Planted) -> list[Snapshot]:
    return [world.snapshot(2), world.snapshot(3)]


@pytest.fixture(scope="module")
def valid(world: Planted) -> Snapshot:
    return world.snapshot(4)


@pytest.fixture(scope="module")
def undisturbed(train: list[Snapshot], valid: Snapshot) -> Fitted:
    return fit(train, valid, SMALL)


class Killed(Exception):
    """Stands for a kill: nothing in the package catches it."""


def empty_labels(snapshot: Snapshot) -> Snapshot:
    none = torch.zeros(0, dtype=torch.int64)
    return replace(
        snapshot,
        labels=PlaceLabels(none, none, none.float(), none),
        friends=FriendLabels(none, none, none.float(), none.float(), none),
        companions=Companions(none, none, none, none),
    )


def test_a_trained_model_beats_popularity_on_planted_tastes() -> None:
    world = Planted(n_users=300, n_places=600, weeks=5, visits=10, seed=3)
    config = TrainConfig(
        model=ModelConfig(head_hidden=(64, 32)),
        step=StepConfig(positives=1024, friends=512, companions=128),
        rank=RankConfig(batch=32),
        epochs=4,
        steps_per_epoch=10,
        learning_rate=5e-3,
        threads=1,
        warmup_steps=5,
    )
    fitted = fit([world.snapshot(2), world.snapshot(3)], world.snapshot(4), config)
    result = evaluate(fitted.model, prepare(world.snapshot(4), fitted.config.model), candidates=60)
    for metric in ("ndcg", "recall", "candidate_recall"):
        assert result.difference[metric]["low"] > 0, metric
        assert result.rows["popularity"][metric] > result.rows["random"][metric]
    assert result.rows["model"]["ndcg"] > 1.5 * result.rows["popularity"]["ndcg"]
    assert result.friend_auc is not None
    assert result.friend_auc > 0.8


def test_the_same_run_twice_ends_the_same(train: list[Snapshot], valid: Snapshot, undisturbed: Fitted) -> None:
    again = fit(train, valid, SMALL)
    assert again.history == undisturbed.history
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    other = fit(train, valid, replace(SMALL, seed=1))
    assert other.history != undisturbed.history


@pytest.mark.parametrize("moment", [(0, 2), (1, 1), (2, 3)])
def test_killed_and_resumed_ends_as_undisturbed(
    train: list[Snapshot], valid: Snapshot, undisturbed: Fitted, tmp_path: Path, moment: tuple[int, int]
) -> None:
    path = tmp_path / "run.safetensors"

    def kill(progress: Progress) -> None:
        if (progress.epoch, progress.step) == moment:
            raise Killed

    with pytest.raises(Killed):
        fit(train, valid, SMALL, checkpoint=path, on_progress=kill)
    seen: list[Progress] = []
    resumed = fit(train, valid, SMALL, checkpoint=path, on_progress=seen.append)
    # whole epochs are kept, the broken one is done again
    assert (seen[0].stage, seen[0].epoch, seen[0].step) == ("vectors", moment[0], 1)
    assert resumed.history == undisturbed.history
    assert (resumed.best_epoch, resumed.best_metric) == (undisturbed.best_epoch, undisturbed.best_metric)
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    once_more: list[Progress] = []
    finished = fit(train, valid, SMALL, checkpoint=path, on_progress=once_more.append)
    ranked = {f"ranking by {e['reads']}" for e in undisturbed.history if e["stage"] == "ranking"}
    assert {p.stage for p in once_more} == ranked  # the head begins again
    assert finished.history == undisturbed.history


def test_a_checkpoint_of_another_run_is_not_resumed(train: list[Snapshot], valid: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    short = replace(SMALL, epochs=1)
    fit(train, valid, short, checkpoint=path)
    with torch.random.fork_rng():
        other = fit(train, valid, replace(short, seed=5), checkpoint=path)
        alone = fit(train, valid, replace(short, seed=5))
    assert other.history == alone.history
    path.write_bytes(b"not a checkpoint")
    assert load_checkpoint(path, "x") is None
    fit(train, valid, short, checkpoint=path)


def test_killed_while_the_head_learns_ends_as_undisturbed(
    train: list[Snapshot], valid: Snapshot, undisturbed: Fitted, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"

    def kill(progress: Progress) -> None:
        if "cosine" in progress.stage:
            raise Killed

    with pytest.raises(Killed):
        fit(train, valid, SMALL, checkpoint=path, on_progress=kill)
    resumed = fit(train, valid, SMALL, checkpoint=path)
    assert resumed.history == undisturbed.history
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_best_epoch_of_what_helps_comes_back(valid: Snapshot, undisturbed: Fitted) -> None:
    ranked = [e for e in undisturbed.history if e["stage"] == "ranking" and e["reads"] == undisturbed.reads]
    best = max(ranked, key=lambda e: e["ndcg"] + e["ndcg_new"])
    assert (best["epoch"], best["ndcg"]) == (undisturbed.best_epoch, undisturbed.best_metric)
    assert undisturbed.model.heads.place.reads == undisturbed.reads
    reached: dict[str, float] = {}  # by what was read, in the order in which it was tried
    for e in undisturbed.history:
        if e["stage"] == "ranking":
            reached[e["reads"]] = max(reached.get(e["reads"], 0.0), e["ndcg"] + e["ndcg_new"])
    kept, without, with_cosine = reached
    assert (kept, without) == ("sources + counters", "sources"), "events reach the next answer by the counters"
    for tried, chosen in ((without, "counters" not in undisturbed.reads), (with_cosine, "cosine" in undisturbed.reads)):
        if tried == with_cosine:
            assert tried == f"{kept} + cosine", "tried beside what was kept before"
        if chosen:
            assert reached[tried] > reached[kept], "what does not help changes nothing"
            kept = tried
    assert kept == undisturbed.reads
    assert undisturbed.valid.rows["model"]["ndcg"] == pytest.approx(
        undisturbed.best_metric, abs=0.02
    )  # 200 candidates, not 40
    assert not undisturbed.model.training


def test_a_window_is_ranked_by_vectors_that_have_not_learned_it(train: list[Snapshot], valid: Snapshot) -> None:
    """What happened in the last window changes nothing of what the head reads of it."""
    seen: list[list[Window]] = []

    def keep(model: RecModel, windows: list[Window], *args: object, **kwargs: object) -> list[RankProgress]:
        seen.append(windows)
        return fit_head(model, windows, *args, **kwargs)  # type: ignore[arg-type]

    last = train[-1]
    order = torch.arange(len(last.labels.user)).flip(0)
    moved = replace(last.labels, place=last.labels.place[order])  # other labels, the same users
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "fit_head", keep)
        fit(train, valid, SMALL)
        fit([*train[:-1], replace(last, labels=moved)], valid, SMALL)
    (one,), (other,) = seen
    for a, b in zip(one.kinds, other.kinds, strict=True):
        assert torch.equal(a.embeddings.user, b.embeddings.user)
        assert torch.equal(a.embeddings.place, b.embeddings.place)


def test_the_global_generator_and_threads_are_left_alone(train: list[Snapshot], valid: Snapshot) -> None:
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(train, valid, replace(SMALL, epochs=1, steps_per_epoch=1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_what_it_cannot_learn_from_is_refused(train: list[Snapshot], valid: Snapshot) -> None:
    with pytest.raises(DataError, match="at least one snapshot"):
        fit([], valid, SMALL)
    with pytest.raises(DataError, match="no training window has a positive"):
        fit([empty_labels(train[0])], valid, SMALL)
    with pytest.raises(DataError, match="must end by"):
        fit([valid], train[0], SMALL)
    data = train[0].data.clone()
    data["place"].x = data["place"].x.clone()
    data["place"].x[5, 50] = float("nan")
    with pytest.raises(DataError, match=r"place\.x column 50 is not finite"):
        fit([replace(train[0], data=data)], valid, SMALL)
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        TrainConfig(epochs=0)


def test_a_loss_that_explodes_is_named(train: list[Snapshot], valid: Snapshot) -> None:
    with pytest.raises(DataError, match=r"is not finite in epoch \d+, step \d+, snapshot of 2024-01-"):
        fit(train, valid, replace(SMALL, learning_rate=1e30, clip=1e30, epochs=2))


def test_windows_without_friend_labels_or_companions_train(train: list[Snapshot], valid: Snapshot) -> None:
    bare = [replace(s, friends=empty_labels(s).friends, companions=empty_labels(s).companions) for s in train]
    fitted = fit(bare, empty_labels(valid), replace(SMALL, epochs=1))
    assert set(fitted.history[0]["losses"]) == {"retrieval"}
    assert fitted.valid.friend_auc is None


def test_one_user_one_place() -> None:
    world = Planted(n_users=1, n_places=1, n_cities=1, weeks=4, visits=0)
    snapshot = world.snapshot(2)
    one, none = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    labels = PlaceLabels(one, one, torch.tensor([5.0]), one)
    friends = FriendLabels(none, none, none.float(), none.float(), none)
    snapshot = replace(snapshot, labels=labels, friends=friends)
    valid = replace(world.snapshot(3), labels=labels, friends=friends)
    fitted = fit([snapshot], valid, replace(SMALL, epochs=1))
    assert fitted.best_metric == 1.0


def test_a_city_without_places_or_interactions_trains_through(world: Planted, valid: Snapshot) -> None:
    snapshot = world.snapshot(3)
    data = snapshot.data.clone()
    data["user"].x = data["user"].x.clone()
    data["user"].x[:3, 0] = 4.0  # a city of three people and no place
    fitted = fit([replace(snapshot, data=data)], valid, replace(SMALL, epochs=1))
    assert fitted.config.model.n_cities == 5
    evaluate(fitted.model, prepare(replace(snapshot, data=data), fitted.config.model))


def test_export_fits_an_artifact(world: Planted, undisturbed: Fitted, tmp_path: Path) -> None:
    prepared = prepare(empty_labels(world.snapshot(5)), undisturbed.config.model)
    vectors = embed(undisturbed.model, prepared)
    ids = torch.randperm(60).numpy() + 1000
    places = pa.table(
        {
            "place_id": ids,
            "city_name": [f"city {world.place_city[i - 1000]}" for i in ids],
            "neighborhood_id": pa.array([int(world.place_home[i - 1000]) for i in ids], pa.int32()),
            "neighborhood_name": [f"n{world.place_home[i - 1000]}" for i in ids],
            "name": [f"place {i}" for i in ids],
            "price_band": pa.array(ids % 5, pa.int32()),
            "typical_time_slot": pa.array(ids % 6, pa.int32()),
            "category_one_hot": pa.array([[float(i % 2), 1.0, 0.0] for i in ids], pa.list_(pa.float32())),
            "fine_tag_vector": pa.array(
                [[0.0] * 4 if i % 3 else [0.5, 0.0, 0.0, 0.5] for i in ids], pa.list_(pa.float32())
            ),
        }
    )
    out = export(undisturbed, prepared, vectors, places)
    assert out.tables["users"].schema == USERS_SCHEMA
    assert out.tables["places"].schema == PLACES_SCHEMA
    json.dumps(out.config)
    artifact = save_artifact(tmp_path, "v1", {"config": out.config}, tables=out.tables, tensors=out.tensors)
    rows = artifact.table("places").to_pylist()
    assert [r["place_id"] for r in rows] == list(range(1000, 1060))
    for i, row in enumerate(rows):
        assert row["index"] == i
        assert row["name"] == f"place {row['place_id']}"
        assert row["city_name"] == f"city {row['city_id']}"
        assert len(row["embedding"]) == D_MODEL
        assert (row["price_band"], row["typical_time_slot"]) == (row["place_id"] % 5, row["place_id"] % 6)
        assert row["categories"] == ([0, 1] if row["place_id"] % 2 else [1])
        assert row["tags"] == ([] if row["place_id"] % 3 else [0, 3])
        torch.testing.assert_close(torch.tensor(row["embedding"]), vectors.place[i])
    users = artifact.table("users").to_pylist()
    torch.testing.assert_close(torch.tensor(users[7]["people"]), vectors.people[7])
    assert Ranker.load(artifact).config == undisturbed.config.model
    with pytest.raises(DataError, match="is not among the places"):
        export(undisturbed, prepared, vectors, places.slice(1))
