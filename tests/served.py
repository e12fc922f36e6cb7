"""Versions to serve: one trained on the small world, and others that answer otherwise; and an app that serves them."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import StringIO
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import redis
import torch
from fastapi import FastAPI
from rich.console import Console
from scipy.stats import ortho_group

from api.app import create_app
from jobs import publish, rollback, train
from jobs.report import Report
from recsys.artifacts import open_artifact, save_artifact
from recsys.models.ranker import MODEL
from recsys.settings import Settings
from recsys.sources import SOURCES
from tests.conftest import ROOT, Filled, free_port

ONE, TWO, THREE = "one", "two", "three"


def quiet(job: str, settings: Settings) -> Report:
    return Report(job, settings.reports, Console(file=StringIO(), width=400))


def train_versions(filled: Filled, root: Path) -> Settings:
    """Three versions of one data set, none of them published; the lake is left behind, so nothing is compared."""
    shutil.copytree(filled.data_dir, root)
    settings = Settings(
        data_dir=root, redis_url=filled.redis_url.removesuffix("/0") + "/9", feature_repo=ROOT / "feature_repo",
        epochs=1, online_timeout_ms=2_000, _env_file=None,
    )  # fmt: skip
    made = quiet("train", settings)
    train.run(settings, made)
    others_of(settings, made.figures["version"])
    shutil.rmtree(settings.lake)
    own_store(settings.redis_url)
    put(settings, TWO)
    put(settings, ONE)
    return settings


def others_of(settings: Settings, version: str) -> None:
    """ONE, TWO and THREE: versions that answer otherwise than a trained one, and than each other."""
    artifact = open_artifact(settings.artifacts, version)
    about = {name: value for name, value in artifact.manifest.items() if name not in ("version", "files")}
    for seed, name in enumerate((ONE, TWO, THREE)):
        # vectors turned: dot products within the version stay, those across versions mean nothing
        turn = ortho_group.rvs(128, random_state=seed).astype(np.float32)
        tables = {t: turned(artifact.table(t), turn) for t in ("users", "places")}
        noise = torch.Generator().manual_seed(seed)
        tensors = {
            key: value + 0.15 * torch.randn(value.shape, generator=noise) if value.is_floating_point() else value
            for key, value in artifact.tensors(MODEL).items()
        }
        save_artifact(
            settings.artifacts, name, about, tables=tables,
            tensors={MODEL: tensors, SOURCES: artifact.tensors(SOURCES)},
        )  # fmt: skip


def own_store(redis_url: str) -> str:
    """The same online store in a database of its own, for events to be folded into."""
    url = redis_url.rpartition("/")[0] + "/9"
    with redis.Redis.from_url(redis_url.rpartition("/")[0] + "/0") as store, redis.Redis.from_url(url) as own:
        own.flushdb()
        copies = store.pipeline(transaction=False)
        for key in store.scan_iter(count=10_000):
            copies.copy(key, key, destination_db=9)
        assert all(copies.execute())
    return url


def turned(table: pa.Table, turn: np.ndarray) -> pa.Table:
    for name in ("embedding", "people"):
        if name in table.column_names:
            values = np.stack(table[name].to_numpy()) @ turn
            table = table.set_column(
                table.column_names.index(name), name, pa.array(list(values), pa.list_(pa.float32()))
            )
    return table


def installed(trained: Settings, root: Path, *, published: bool = False) -> Settings:
    """The same versions, with an index (where published, ONE after TWO), an online store and all else of their own."""
    root.mkdir()
    own_store(trained.redis_url)
    if published:
        shutil.copytree(trained.index, root / "index", copy_function=os.link)
    shutil.copy(trained.data_dir / "registry.db", root / "registry.db")
    for version in (ONE, TWO, THREE):
        shutil.copytree(trained.artifacts / version, root / "artifacts" / version)
    return trained.model_copy(update={"data_dir": root})


def put(settings: Settings, version: str) -> None:
    publish.run(settings, quiet("publish", settings), version=version)


def back(settings: Settings) -> None:
    rollback.run(settings, quiet("rollback", settings))


def live(settings: Settings) -> str:
    return str(json.loads((settings.index / "live.json").read_text())["live"])


@asynccontextmanager
async def app_of(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The app in this process, started and stopped."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://served", timeout=30) as client:
            yield app, client


async def until(condition, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)


async def serves(client: httpx.AsyncClient, version: str | None) -> None:
    async def is_so() -> bool:
        return (await client.get("/")).json()["model_version"] == version

    await until(is_so, f"{version} serves")


@contextmanager
def process(settings: Settings, *args: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`recsys serve` as a user starts it; stopped by SIGTERM where the test did not stop it."""
    port = free_port()
    said = {
        "RECSYS_DATA_DIR": str(settings.data_dir),
        "RECSYS_REDIS_URL": settings.redis_url,
        "RECSYS_FEATURE_REPO": str(settings.feature_repo),
        "RECSYS_PORT": str(port),
    }
    log = settings.data_dir / "served.log"
    before = log.stat().st_size if log.exists() else 0  # another process may have said so there
    with log.open("ab") as out:
        made = subprocess.Popen(
            [sys.executable, "-m", "jobs", "serve", *args], cwd=ROOT, env=os.environ | said | env,
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while b"serving at" not in log.read_bytes()[before:]:
            assert made.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.05)
        yield made, base
    finally:
        if made.poll() is None:
            made.terminate()
        try:
            made.wait(30)
        except subprocess.TimeoutExpired:
            made.kill()
            raise
