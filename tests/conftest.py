"""Shared parts, all real: a small generated world, a Redis-protocol server of our own, a filled feature store."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import recsys.features  # noqa: F401 - before a test imports Feast itself, which then counts in files that all share

if TYPE_CHECKING:
    from tests.installed import Installation

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def world_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Landed tables of a small city world; read only."""
    from recsys.world import WorldConfig, generate

    folder = tmp_path_factory.mktemp("world") / "landing"
    generate(WorldConfig(users=160, places=120, seed=7), folder)
    return folder


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own on a free port; a missing binary fails the test, it does not skip it."""
    from recsys.services import start, stop

    folder = tmp_path_factory.mktemp("redis")
    url = f"redis://127.0.0.1:{free_port()}/0"
    start(url, folder)
    yield url
    stop(url, folder)


@dataclass
class Filled:
    """A data folder whose lake and features are there, and the address of its online store."""

    data_dir: Path
    redis_url: str
    start: datetime
    end: datetime


@pytest.fixture(scope="session")
def filled(world_dir: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Features of the small world, materialized by the job itself."""
    from jobs import materialize
    from jobs.report import Report
    from recsys.lake import Lake
    from recsys.settings import Settings

    data_dir = tmp_path_factory.mktemp("data")
    shutil.copytree(world_dir, data_dir / "lake")
    settings = Settings(data_dir=data_dir, redis_url=redis_url, feature_repo=ROOT / "feature_repo")
    materialize.run(settings, Report("materialize", settings.reports))
    with Lake(data_dir) as lake:
        start, end = lake.horizon()
    return Filled(data_dir, redis_url, start.astimezone(UTC), end.astimezone(UTC))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Installation]":
    """The whole pipeline at 300 x 300, as a user runs it."""
    from tests.installed import install

    made = install(tmp_path_factory.mktemp("e2e"))
    made.run("pipeline")
    yield made
    made.run("down", check=False)
