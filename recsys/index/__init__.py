"""The vector index: one protocol, Qdrant's engine in process or a Qdrant server behind it.

A version is two collections, `places__<version>` and `users__<version>`. Which one serves is one pointer (Edge) or one
alias change (server), so places and users move together. A reader is pinned to one version and does not follow the
pointer. The city filter and the exclusions are part of the search.
"""

from pathlib import Path

from recsys.index.base import COLLECTIONS, Hits, IndexReader, VectorIndex, Vectors
from recsys.index.edge import EdgeIndex
from recsys.index.server import ServerIndex

__all__ = ["COLLECTIONS", "EdgeIndex", "Hits", "IndexReader", "ServerIndex", "VectorIndex", "Vectors", "open_index"]


def open_index(
    folder: Path, url: str | None = None, api_key: str | None = None, *, timeout_s: float = 1.0
) -> VectorIndex:
    """The server when there is a URL, else the embedded engine; call `refresh` before asking which version is live."""
    if url is None:
        return EdgeIndex(folder)
    from qdrant_client import AsyncQdrantClient

    return ServerIndex(
        AsyncQdrantClient(url=url, api_key=api_key, timeout=max(1, round(timeout_s)), check_compatibility=False)
    )
