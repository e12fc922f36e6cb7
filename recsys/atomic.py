"""Files that are there whole or not at all: write aside, flush to disk, rename."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

_MOVES: Final = "moves.json"
_ACCEPTED: Final = ".accepted"
_POLL_S: Final = 0.001


def _aside(path: Path) -> Path:
    # One fixed name: what a killed run left behind is overwritten by the next one instead of piling up.
    return path.parent / f".{path.name}.partial"


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, timeout_s: float, busy: Callable[[str], Exception]) -> Iterator[None]:
    """Hold a lock file. The lock goes with its process, however that ends.

    Args:
        path: the file; made where there is none.
        timeout_s: how long to wait for another process.
        busy: makes the error that says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise busy(f"{path} is held by another process (waited {timeout_s:g} s)") from error
            time.sleep(_POLL_S)  # a lock of this kind cannot be waited for with a deadline
        yield
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
        flush(aside)
        aside.replace(path)
        flush(path.parent)
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
                flush(file)
        if path.exists():
            path.replace(old)
        aside.replace(path)
        flush(path.parent)
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


@contextmanager
def staging(data_dir: Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder shaped like the data folder; when the block ends well, its files take their places.

    One rename of the folder is the moment of acceptance: killed before it, the last accepted state is whole; killed
    after it, whoever opens the lake next finishes the moves.

    Args:
        data_dir: the data folder.
        replaces: globs under it; what they match and the new state does not have goes.
    """
    data_dir = data_dir.resolve()
    finish_staging(data_dir)
    stage = data_dir / ".validating"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
        made = (p.relative_to(stage) for p in stage.rglob("*") if p.is_file())
        files = sorted(str(p) for p in made if not any(part.startswith(".") for part in p.parts))
        old = {str(p.relative_to(data_dir)) for pattern in replaces for p in data_dir.glob(pattern) if p.is_file()}
        write_json(stage / _MOVES, {"files": files, "gone": sorted(old - set(files))})
        stage.replace(data_dir / _ACCEPTED)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    finish_staging(data_dir)


def finish_staging(data_dir: Path) -> None:
    """Complete the moves of a `staging` that was killed after its moment of acceptance."""
    accepted = data_dir / _ACCEPTED
    if not accepted.exists():
        return
    if (accepted / _MOVES).exists():  # else every move is done, and only removing the folder was cut off
        moves = json.loads((accepted / _MOVES).read_text(encoding="utf-8"))
        for gone in (data_dir / name for name in moves["gone"]):
            if gone.is_file():  # else it went before the cut, and a folder of that name may have come since
                gone.unlink(missing_ok=True)
            if gone.parent.parent != data_dir:  # a folder goes with the last of what was in it, but for the fixed ones
                with suppress(OSError):
                    gone.parent.rmdir()
        for file in moves["files"]:
            (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # moved before the cut, or by another process that found it so
                (accepted / file).replace(data_dir / file)
        (accepted / _MOVES).unlink(missing_ok=True)
    shutil.rmtree(accepted, ignore_errors=True)
