"""The vector index: one protocol, Qdrant's engine in process or a Qdrant server behind it.

A version is two collections, `places__<version>` and `users__<version>`. Which one serves is one pointer (Edge) or one
alias change (server), so places and users move together. A reader is pinned to one version and does not follow the
pointer. The city filter and the exclusions are part of the search.
"""

from pathlib import Path

from recsys.index.base import COLLECTIONS, Hits, IndexReader, Layout, VectorIndex, Vectors
from recsys.index.edge import EdgeIndex
from recsys.index.server import ServerIndex

__all__ = [
    "COLLECTIONS", "EdgeIndex", "Hits", "IndexReader", "Layout", "ServerIndex", "VectorIndex", "Vectors", "open_index",
]  # fmt: skip


def open_index(
    folder: Path, url: str | None = None, api_key: str | None = None, *, timeout_s: float = 1.0,
    layout: Layout | None = None,
) -> VectorIndex:  # fmt: skip
    """The server when there is a URL, else the embedded engine; call `refresh` before asking which version is live.

    Args:
        folder: of the embedded engine. url: of the server, whose key is `api_key`. timeout_s: of a call of the server.
        layout: of what is published to a server.
    """
    if url is None:
        return EdgeIndex(folder)
    from qdrant_client import AsyncQdrantClient

    client = AsyncQdrantClient(url=url, api_key=api_key, timeout=max(1, round(timeout_s)), check_compatibility=False)
    return ServerIndex(client, layout=layout)
