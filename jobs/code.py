"""Which code this is: what of it decides a version, and its commit."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from recsys.settings import ROOT

# a version's name covers the code that decides what comes out
_SOURCES = (
    "models",
    "sources",
    "training",
    "aggregates",
    "profiles.py",
    "constants.py",
    "graph.py",
    "taxonomy.py",
)


def code_digest() -> str:
    """Hash of the code that decides what training makes."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = ROOT / "recsys" / source
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def commit() -> str | None:
    """The commit that is checked out; None outside of a checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(ROOT), capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
