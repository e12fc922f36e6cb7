"""What is missing for Spark is said in one sentence that names what to do."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.spark import Spark
from tests.conftest import ROOT


def nothing(sql: str, files: object) -> Iterator[tuple[str, list[str] | None, list[Path]]]:
    return iter(())


def opened(folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        Spark(nothing, master="local[1]", memory_limit_gb=1.0, scratch=folder)
    said = str(refused.value)
    assert "\n" not in said
    assert not list(folder.iterdir())
    return said


def java(folder: Path, answer: str) -> Path:
    """A command that answers as an old Java does."""
    folder.mkdir(parents=True)
    command = folder / "java"
    command.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    command.chmod(0o755)
    return command


def test_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert opened(tmp_path) == (
        "RECSYS_ENGINE is spark, which needs Java 17 or newer (apt-get install default-jre-headless): "
        "there is none in PATH"
    )
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert opened(tmp_path).endswith("there is none in JAVA_HOME")


@pytest.mark.parametrize("said", ['openjdk version "11.0.2" 2019-01-15', 'java version "1.8.0_202"', "what?"])
def test_with_an_old_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str):
    home = java(tmp_path / "home" / "bin", said).parent.parent
    monkeypatch.setenv("JAVA_HOME", str(home))
    (tmp_path / "work").mkdir()
    assert opened(tmp_path / "work").endswith(f"(got {said} of {home}/bin/java)")


def test_without_the_extra(tmp_path: Path):
    """As a user meets it: the command, one line, exit code 1."""
    code = "import sys; sys.modules['pyspark'] = None; from jobs.cli import main; main()"
    env = {"RECSYS_DATA_DIR": str(tmp_path), "RECSYS_ENGINE": "spark", "PATH": "/usr/bin:/bin", "COLUMNS": "1000"}
    done = subprocess.run(
        [sys.executable, "-c", code, "materialize"], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = "RECSYS_ENGINE is spark, and pyspark is not installed: pip install 'recsys[spark]'"
    assert [line for line in done.stderr.splitlines() if line.strip()][-1].endswith(said)
