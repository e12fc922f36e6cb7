"""Feast's own tools on this repository, as their users start them: its feature server and its page."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import yaml

from recsys.features import LiveStates
from tests.conftest import ROOT, Filled, free_port
from tests.live import open_store

START_S = 120


@pytest.fixture
def repo(filled: Filled, tmp_path: Path) -> Path:
    """The repository with the addresses of the test's registry and online store, as one changes them in its file."""
    folder = Path(shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo"))
    path, url = folder / "feature_store.yaml", urlsplit(filled.redis_url)
    config = yaml.safe_load(path.read_text())
    config["registry"] = str(filled.data_dir / "registry.db")
    config["online_store"]["connection_string"] = f"{url.hostname}:{url.port},db={url.path.strip('/')}"
    path.write_text(yaml.safe_dump(config))
    return folder


@contextmanager
def tool(repo: Path, command: str, answers_at: str) -> Iterator[httpx.Client]:
    """A `feast` command that serves on a free port, once it answers."""
    port, said = free_port(), repo.parent / f"{command}.log"
    words = [str(Path(sys.executable).parent / "feast"), command, "-h", "127.0.0.1", "-p", str(port)]
    with said.open("w") as log:
        process = subprocess.Popen(words, cwd=repo, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + START_S
            while True:
                try:
                    client.get(answers_at).raise_for_status()
                    break
                except httpx.TransportError:
                    assert process.poll() is None, said.read_text()[-3000:]
                    assert time.monotonic() < deadline, said.read_text()[-3000:]
                    time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def test_the_feature_server_answers_for_a_service(filled: Filled, repo: Path):
    body = {
        "feature_service": "rank_places_v1",
        "entities": {"user_id": [3, 3], "place_id": [5, 6]},
        "full_feature_names": True,  # states of two views have one name
    }
    with tool(repo, "serve", "/health") as client:
        answer = client.post("/get-online-features", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    columns = dict(zip(found["metadata"]["feature_names"], found["results"], strict=True))
    store = open_store(filled.redis_url, filled.data_dir)
    live = LiveStates(store)
    (states,) = live.read([live.wanted("place_activity", place_id=np.array([5, 6]))])
    store.close()
    served = columns["place_activity__state"]["values"]
    assert len(states) == len(served) == 2
    for state, got in zip(states, served, strict=True):
        np.testing.assert_array_equal(got, state)


def test_the_page_shows_what_is_registered(repo: Path):
    with tool(repo, "ui", "/") as client:
        assert '<div id="root">' in client.get("/").text
        views = client.get("/api/v1/feature_views", params={"project": "recsys"})
    assert views.status_code == 200, views.text
    names = {view["spec"]["name"] for view in views.json()["featureViews"]}
    assert names >= {"user_profile", "user_activity", "user_recent", "place_profile", "place_activity", "user_place"}
