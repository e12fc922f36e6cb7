"""Files that are there whole or not at all: write aside, flush to disk, rename."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _aside(path: Path) -> Path:
    # One fixed name: what a killed run left behind is overwritten by the next one instead of piling up.
    return path.parent / f".{path.name}.partial"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to; it takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.unlink(missing_ok=True)
    try:
        yield aside
        _flush(aside)
        aside.replace(path)
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `path` when the block ends without an error.

    An older folder of that name steps aside for it. Killed between the two renames, `restored` puts it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = _aside(path), _old(path)
    restored(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            path.replace(old)
        aside.replace(path)
        _flush(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        restored(path)


def restored(path: Path) -> Path:
    """A folder that `replacing_folder` writes, put back if its replacement was killed half-way."""
    old = _old(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(path)
    return path


def _old(path: Path) -> Path:
    return path.parent / f".{path.name}.old"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, atomically."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
