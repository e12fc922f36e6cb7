"""The version before is live again."""

import asyncio

from jobs.report import Report
from recsys.index import open_index
from recsys.settings import Settings


def run(settings: Settings, report: Report) -> None:
    """Swap the live version with the one before it."""
    report["version"] = asyncio.run(_rollback(settings))


async def _rollback(settings: Settings) -> str:
    index = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
    try:
        await index.refresh()
        return await index.rollback()
    finally:
        await index.close()
