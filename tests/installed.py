"""A data folder, a Feast repository and an environment as a user has them, and copies that may be changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, free_port


@dataclass
class Installation:
    """A data folder, a Feast repository and an environment of their own."""

    root: Path
    env: dict[str, str]
    redis_port: int

    @property
    def data(self) -> Path:
        return self.root / "data"

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *args], env=self.env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    def report(self, job: str) -> dict:
        return json.loads((self.data / "reports" / f"{job}.json").read_text())


def install(root: Path, **env: str) -> Installation:
    shutil.copytree(ROOT / "feature_repo", root / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port()
    config = root / "feature_repo" / "feature_store.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:6399", f"127.0.0.1:{port}"))
    settings = {
        "RECSYS_DATA_DIR": str(root / "data"),
        "RECSYS_FEATURE_REPO": str(root / "feature_repo"),
        "RECSYS_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "RECSYS_USERS": "300",
        "RECSYS_PLACES": "300",
        "RECSYS_EPOCHS": "2",
        "RECSYS_PORT": str(free_port()),
        **env,
    }
    return Installation(root, {**os.environ, **settings}, port)


def copied(made: Installation, root: Path) -> Installation:
    """The same data at addresses of its own, but for the online store's: `recsys materialize` fills that."""
    copy = install(root)
    shutil.copytree(made.data, copy.data, ignore=shutil.ignore_patterns("redis"))
    return copy


@contextmanager
def serving(made: Installation, **env: str) -> Iterator[str]:
    """`recsys serve` as a user starts it, stopped by Ctrl-C; the address."""
    port = (made.env | env)["RECSYS_PORT"]
    base, log = f"http://127.0.0.1:{port}", made.root / f"served-{port}.log"
    with log.open("ab") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jobs", "serve"], env=made.env | env, cwd=ROOT, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 120
        while b"serving at" not in log.read_bytes():
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.05)
        yield base
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    assert server.returncode == 0, log.read_text()[-3000:]
