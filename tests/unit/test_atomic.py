"""Files and folders that are there whole or not at all."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from recsys.atomic import replacing, replacing_folder, write_json
from tests.conftest import ROOT


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half(write: Callable[[Path], AbstractContextManager[Path]], path: Path) -> None:
    with write(path) as aside:
        (aside / "half" if aside.is_dir() else aside).write_text("half")
        raise RuntimeError("half-way")


def test_a_file_appears_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as aside:
        aside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"):
        half(replacing, path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_block_that_wrote_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_replaces_the_one_before_whole(tmp_path: Path):
    path = tmp_path / "v1"
    for name in ("first", "second"):
        with replacing_folder(path) as aside:
            (aside / "sub").mkdir()
            (aside / "sub" / name).write_text(name)
    assert names(path / "sub") == ["second"]
    assert names(tmp_path) == ["v1"]


def test_an_error_leaves_the_old_folder(tmp_path: Path):
    path = tmp_path / "v1"
    with replacing_folder(path) as aside:
        (aside / "kept").touch()
    with pytest.raises(RuntimeError, match="half-way"):
        half(replacing_folder, path)
    assert names(path) == ["kept"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", ["replacing", "replacing_folder"])
def test_kill_9_in_the_block_leaves_the_old_and_the_next_run_cleans_up(tmp_path: Path, kind: str, before: bool):
    path = tmp_path / "thing"
    old = path if kind == "replacing" else path / "old"
    if before:
        old.parent.mkdir(exist_ok=True)
        old.write_text("old")
    code = f"""
import os, pathlib, signal
from recsys.atomic import {kind}
path = pathlib.Path({str(path)!r})
with {kind}(path) as aside:
    (aside / "half" if aside.is_dir() else aside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert names(tmp_path) == ([".thing.partial", "thing"] if before else [".thing.partial"])
    if before:
        assert old.read_text() == "old"
    if kind == "replacing":
        write_json(path, {"n": 1})
        assert json.loads(path.read_text()) == {"n": 1}
    else:
        with replacing_folder(path) as aside:
            (aside / "whole").touch()
        assert names(path) == ["whole"]
    assert names(tmp_path) == ["thing"]
