"""What `recsys doctor` looks at of what serves: settings, versions, the index. It changes nothing.

Each check imports what it needs by itself, see `recsys.health`.
"""

import asyncio
import os
from pathlib import Path

from recsys.health import Verdict
from recsys.settings import Settings


def settings_agree(settings: Settings) -> Verdict:
    """Settings that cannot all hold, and names that are none."""
    from api.traffic import Split

    there = pointer(settings)
    asked = {"RECSYS_SPLIT": settings.split and Split.parse(settings.split).version, "RECSYS_SHADOW": settings.shadow}
    if gone := {name: version for name, version in asked.items() if version and version not in there}:
        said = ", ".join(f"{name} names {version}" for name, version in gone.items())
        held = " and ".join(filter(None, there)) or "none"
        return Verdict("error", f"{said}; the index holds {held}", f"unset {' '.join(gone)}, or publish that version")
    if strange := sorted(_named() - {f"RECSYS_{name.upper()}" for name in Settings.model_fields}):
        return Verdict("warning", f"no such setting: {', '.join(strange)}", "look it up in docs/operating.md")
    if (cores := os.cpu_count() or 1) < settings.threads:
        said = f"RECSYS_THREADS is more than there are cores (got {settings.threads} for {cores})"
        return Verdict("warning", said, f"RECSYS_THREADS={cores}")
    return Verdict("ok", f"{len(settings.model_fields_set)} set, all others as they come")


def _named() -> set[str]:
    """Names in the environment and in `.env` that look like settings of ours."""
    lines = Path(".env").read_text(encoding="utf-8").splitlines() if Path(".env").is_file() else []
    names = (line.partition("=")[0].removeprefix("export ").strip().upper() for line in lines)
    return {name for name in (*map(str.upper, os.environ), *names) if name.startswith("RECSYS_")}


def versions(settings: Settings) -> Verdict:
    """The artifacts that may serve: whole, and of this code."""
    from recsys.artifacts import newest, open_artifact
    from recsys.artifacts import versions as names
    from recsys.errors import RecsysError
    from recsys.models.ranker import Ranker
    from recsys.recommend.catalogue import Catalogue
    from recsys.recommend.community import Community

    there, (live, previous) = names(settings.artifacts), pointer(settings)
    if not there:
        return Verdict("not applicable", "no version is trained yet", "recsys train")
    if live is not None:
        artifact = open_artifact(settings.artifacts, live)
        users = artifact.table("users")
        Catalogue.load(artifact, artifact.table("places"), len(users))
        Community.load(artifact, users)
        Ranker.load(artifact)
    for name in dict.fromkeys(filter(None, (previous, newest(settings.artifacts)))):
        try:
            open_artifact(settings.artifacts, name)
        except RecsysError as error:
            return Verdict("warning", f"{error} (it does not serve)", "recsys train, or restore it from a backup")
    of = f"; {live} serves" if live else ""
    return Verdict("ok", f"{len(there)} there, those that may serve are whole{of}")


def index(settings: Settings) -> Verdict:
    """The index: whether what it says is live is there, and is a version that this machine has."""
    from recsys.artifacts import versions as names
    from recsys.index import open_index

    async def held() -> list[str]:
        found = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
        try:
            return await found.versions()
        finally:
            await found.close()

    (live, _), there, artifacts = pointer(settings), asyncio.run(held()), names(settings.artifacts)
    if live is None:
        return Verdict("warning" if artifacts else "not applicable", "nothing is published yet", "recsys publish")
    if live not in there:
        return Verdict("error", f"{live} is live and the index does not hold it", f"recsys publish --version {live}")
    if live not in artifacts:
        said = f"{live} is live and its artifact is not in {settings.artifacts}"
        return Verdict("error", said, "restore it from a backup, or recsys rollback")
    return Verdict("ok", f"{live} is live; there are {', '.join(there)}")


def pointer(settings: Settings) -> tuple[str | None, str | None]:
    """The live version and the one before."""
    from recsys.index import open_index

    async def ask() -> tuple[str | None, str | None]:
        found = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
        try:
            await found.refresh()
            return found.live, found.previous
        finally:
            await found.close()

    return asyncio.run(ask())
