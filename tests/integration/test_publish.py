"""A version that finds less than the one that serves does not take its place, unless told to."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from jobs import evaluate, publish, scorecard, train, training_page
from jobs.report import Report
from recsys.artifacts import MANIFEST, open_artifact, save_artifact
from recsys.errors import ArtifactError, WorseVersion
from recsys.lake import Lake
from recsys.models.ranker import MODEL
from recsys.settings import Settings
from recsys.sources import SOURCES
from recsys.training.snapshots import split_weeks
from tests.conftest import ROOT, Filled

GOOD, BAD = "good", "bad"


def report(job: str, settings: Settings) -> Report:
    return Report(job, settings.reports, Console(file=StringIO(), width=400))


def said(made: Report) -> str:
    return made.console.file.getvalue()


@pytest.fixture(scope="module")
def trained(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The lake and features of the small world, and two versions: a trained one, and the same with drawn weights."""
    root = tmp_path_factory.mktemp("publish") / "data"
    shutil.copytree(filled.data_dir, root)
    settings = Settings(
        data_dir=root, redis_url=filled.redis_url, feature_repo=ROOT / "feature_repo", epochs=3, _env_file=None
    )
    made = report("train", settings)
    train.run(settings, made)
    artifact = open_artifact(settings.artifacts, made.figures["version"])
    tables = {name: artifact.table(name) for name in ("users", "places")}
    tensors, sources = artifact.tensors(MODEL), artifact.tensors(SOURCES)
    about = {name: value for name, value in artifact.manifest.items() if name not in ("version", "files")}
    save_artifact(settings.artifacts, GOOD, about, tables=tables, tensors={MODEL: tensors, SOURCES: sources})
    drawn = torch.Generator().manual_seed(0)
    noise = {
        name: 0.1 * torch.randn(t.shape, generator=drawn) if t.is_floating_point() else t for name, t in tensors.items()
    }
    save_artifact(settings.artifacts, BAD, about, tables=tables, tensors={MODEL: noise, SOURCES: sources})
    return settings


@pytest.fixture
def settings(trained: Settings, tmp_path: Path) -> Settings:
    """The same data and versions, with an index and measurements of the test's own."""
    root = tmp_path / "data"
    root.mkdir()
    for path in trained.data_dir.iterdir():
        if path.name not in ("artifacts", "index", "reports"):
            (root / path.name).symlink_to(path)
    for version in (GOOD, BAD):
        shutil.copytree(trained.artifacts / version, root / "artifacts" / version)
        (root / "artifacts" / version / scorecard.FILE).unlink(missing_ok=True)
    return trained.model_copy(update={"data_dir": root})


def publishing(settings: Settings, version: str, *, force: bool = False) -> Report:
    made = report("publish", settings)
    publish.run(settings, made, version=version, force=force)
    return made


def live(settings: Settings) -> str:
    return json.loads((settings.index / "live.json").read_text())["live"]


def test_a_worse_version_is_refused_with_both_figures_and_force_publishes_it(settings: Settings):
    assert "no version serves yet" in said(publishing(settings, GOOD))
    with pytest.raises(WorseVersion) as refused:
        publishing(settings, BAD)
    assert live(settings) == GOOD
    cards = {}
    with Lake(settings.data_dir) as lake:
        on = {"data": lake.fingerprint(), "window": split_weeks(*lake.horizon()).test}
    for version in (GOOD, BAD):
        cards[version] = scorecard.kept(open_artifact(settings.artifacts, version), **on)
        assert cards[version] is not None, "what was measured to compare is kept"
    message = str(refused.value)
    assert f"version {BAD} is worse than {GOOD}, which serves" in message
    assert f"NDCG@10 {cards[BAD].mean:.4f} against {cards[GOOD].mean:.4f}" in message
    assert cards[BAD].mean < cards[GOOD].mean
    assert "recsys publish --force" in message
    forced = publishing(settings, BAD, force=True)
    assert live(settings) == BAD
    assert forced.figures["compared"]["worse"] is True
    assert forced.figures["compared"]["difference"]["high"] < 0
    better = publishing(settings, GOOD)
    assert live(settings) == GOOD
    assert f"{GOOD} is not worse than {BAD}" in said(better)
    assert "serves already" in said(publishing(settings, GOOD))


def test_the_command_refuses_with_exit_code_1(settings: Settings):
    publishing(settings, GOOD)
    env = os.environ | {
        "RECSYS_DATA_DIR": str(settings.data_dir),
        "RECSYS_REDIS_URL": settings.redis_url,
        "RECSYS_FEATURE_REPO": str(settings.feature_repo),
    }

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "jobs", "publish", "--version", BAD, *args]
        return subprocess.run(whole, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    refused = command()
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    words = " ".join(refused.stderr.split())
    assert f"WorseVersion: version {BAD} is worse than {GOOD}, which serves: NDCG@10 0." in words
    assert live(settings) == GOOD
    forced = command("--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout)["version"] == live(settings) == BAD


def test_what_evaluate_found_is_kept_and_not_measured_again(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    for version in (GOOD, BAD):
        made = report("evaluate", settings)
        evaluate.run(settings, made, version=version)
        table = pq.read_table(settings.artifacts / version / scorecard.FILE)
        assert np.mean(table["ndcg"]) == pytest.approx(made.figures["places"]["model"]["ndcg"], abs=1e-5)
        assert len(table) == made.figures["users"]
        open_artifact(settings.artifacts, version)  # the figures are beside what is hashed, not part of it
    monkeypatch.setattr(scorecard, "evaluate", lambda *_, **__: pytest.fail("measured again"))
    publishing(settings, GOOD)
    with pytest.raises(WorseVersion):
        publishing(settings, BAD)


def test_train_and_evaluate_draw_the_page_and_say_how_calibrated_people_are(trained: Settings, settings: Settings):
    drawn = (trained.reports / training_page.FILE).read_text()
    assert "measured on the validation weeks" in drawn
    assert "The worst users" not in drawn, "the weights that validation saw are gone"
    made = report("evaluate", settings)
    evaluate.run(settings, made, version=GOOD)
    page = settings.reports / training_page.FILE
    assert made.figures["page"] == str(page)
    html = page.read_text()
    assert f"Version {GOOD}, measured on the test weeks" in html
    assert "The worst users" in html
    with Lake(settings.data_dir) as lake:
        names = training_page.Names.of(lake)
    assert all(f"<td>{city}</td>" in html for city in names.cities.values())
    people = made.figures["people"]["model"]
    assert f"Expected calibration error {people['friend_ece']:.4f}" in html
    kept = pq.read_schema(open_artifact(settings.artifacts, GOOD).folder / scorecard.FILE).metadata
    assert json.loads(kept[b"people"]) == {name: people[name] for name in ("friend_ece", "attend_ece")}
    assert 0 < people["friend_ece"] < 1
    assert "cold: first seen after the cut" in said(made)
    for found in made.figures["cold"].values():
        assert 0 < found["users"] < 300
        assert {"model", "popularity", "vectors, features only", "vectors, folded in"} <= set(found)
    assert set(made.figures["cold"]) == {"users", "places"}


def test_figures_of_other_data_or_damaged_ones_do_not_count(settings: Settings):
    artifact = open_artifact(settings.artifacts, GOOD)
    made = report("evaluate", settings)
    evaluate.run(settings, made, version=GOOD)
    with Lake(settings.data_dir) as lake:
        on = {"data": lake.fingerprint(), "window": split_weeks(*lake.horizon()).test}
    assert scorecard.kept(artifact, **on) is not None
    assert scorecard.kept(artifact, **(on | {"data": "other"})) is None
    assert scorecard.kept(artifact, **(on | {"window": on["window"][::-1]})) is None
    (artifact.folder / scorecard.FILE).write_bytes(b"half a fi")
    assert scorecard.kept(artifact, **on) is None


def test_what_cannot_be_compared_is_published_and_says_so(settings: Settings):
    publishing(settings, GOOD)
    manifest = settings.artifacts / GOOD / MANIFEST
    whole = json.loads(manifest.read_text())
    for change, why in (
        ({"until": "2099-01-01T00:00:00+00:00"}, "good is of data beyond those that are here"),
        ({"config": {"model": {"unknown": 1}}}, "version good does not fit this code's model"),
    ):
        manifest.write_text(json.dumps(whole | change))
        (manifest.parent / scorecard.FILE).unlink(missing_ok=True)  # what was measured before would still count
        made = publishing(settings, BAD)
        assert f"not compared with {GOOD}, which serves: " in said(made)
        assert why in said(made)
        manifest.write_text(json.dumps(whole))
        publishing(settings, GOOD)
    shutil.rmtree(settings.artifacts / GOOD)
    made = publishing(settings, BAD)
    assert "no model version good" in said(made)
    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir.parent / "other"})
    shutil.copytree(settings.artifacts, elsewhere.artifacts)
    shutil.copytree(settings.artifacts / BAD, elsewhere.artifacts / GOOD)
    again = json.loads((elsewhere.artifacts / GOOD / MANIFEST).read_text())
    (elsewhere.artifacts / GOOD / MANIFEST).write_text(json.dumps(again | {"version": GOOD}))
    publishing(elsewhere, BAD)
    assert "there are no data here" in said(publishing(elsewhere, GOOD))


def test_a_version_of_another_architecture_is_an_artifact_error(settings: Settings):
    artifact = open_artifact(settings.artifacts, GOOD)
    wider = json.loads(json.dumps(artifact.manifest["config"]))
    wider["model"]["d_model"] = 64
    with pytest.raises(ArtifactError, match="does not fit this code's model"):
        scorecard.load_model(replace(artifact, manifest={**artifact.manifest, "config": wider}))


def test_a_difference_within_the_noise_is_not_worse():
    rng = np.random.default_rng(0)
    users = np.arange(200)
    base = rng.random(200)
    noisy = scorecard.Scorecard(users, base + rng.normal(-0.001, 0.2, 200))
    lower = scorecard.Scorecard(users[::-1], (base - 0.01)[::-1])  # in another order: paired by user
    serving = scorecard.Scorecard(users, base)
    assert not scorecard._compared("new", noisy, "old", serving).worse
    found = scorecard._compared("new", lower, "old", serving)
    assert found.worse
    assert found.difference == pytest.approx({"mean": -0.01, "low": -0.01, "high": -0.01})
    nobody = scorecard.Scorecard(users[:0], base[:0])
    assert not scorecard._compared("new", nobody, "old", nobody).worse
