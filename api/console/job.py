"""A command of ours in a process of its own: it may be slow, take memory or hang, and the service goes on."""

import asyncio
import os
import sys
from typing import Any, Final

from recsys.errors import JobRefused, JobTooSlow
from recsys.settings import Settings

_PASSED: Final = (
    "data_dir", "feature_repo", "redis_url", "qdrant_url", "qdrant_api_key", "qdrant_by_city", "qdrant_replicas",
    "qdrant_write_consistency", "threads", "memory_limit_gb", "engine", "spark_master", "feature_store_yaml",
)  # fmt: skip
_WIDE: Final = "100000"  # columns: a sentence stays on one line


async def run_command(settings: Settings, *args: str, deadline_s: float, **other: Any) -> str:
    """Run `recsys` with the service's own settings.

    Args:
        settings: where things are.
        args: of the command line.
        deadline_s: after which it is killed.
        other: settings that are other than the service's.

    Returns:
        What it printed.

    Raises:
        JobRefused: it ended with another exit code than 0; its own sentence.
        JobTooSlow: it did not end in time.
    """
    said = {name: getattr(settings, name) for name in _PASSED} | other
    own = {f"RECSYS_{name.upper()}": str(value) for name, value in said.items() if value is not None}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobs", *args,
        env=os.environ | {"COLUMNS": _WIDE} | own,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise JobTooSlow(f"recsys {args[0]} did not end within {deadline_s:g} s, and was stopped") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines()
        raise JobRefused(lines[-1] if lines else f"recsys {args[0]} ended with exit code {process.returncode}")
    return out.decode()
