"""Where a list goes on: what its pages have shown so far, which the next page leaves out.

Scores move between two requests, so a position would repeat some items and skip others; ids that were shown cannot.
"""

import base64
import binascii
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from recsys.errors import InvalidField

MOST_SHOWN: Final = 1_000  # then a list ends: nobody reads on
_MARK: Final = 8  # bytes that say whose list it is
MAX_CHARS: Final = 4 * ((_MARK + 8 * MOST_SHOWN) // 3 + 1)


def encode(shown: Sequence[int], *whose: object) -> str:
    """Text for the ids of a list's pages so far.

    Args:
        shown: at most MOST_SHOWN.
        whose: what makes the list that one and no other.
    """
    body = _mark(whose) + np.array(shown, dtype="<i8").tobytes()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode(text: str, *whose: object) -> tuple[int, ...]:
    """The ids back.

    Raises:
        InvalidField: no text of `encode`, or of another list.
    """
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        body = b""
    if len(body) < _MARK or len(body) % 8 or len(body) > _MARK + 8 * MOST_SHOWN:
        raise InvalidField("cursor", "must be the `next_cursor` of an answer")
    if body[:_MARK] != _mark(whose):
        raise InvalidField("cursor", "is of a list for somebody else, or of another city")
    return tuple(np.frombuffer(body[_MARK:], dtype="<i8").tolist())


def next_cursor(top_k: int, whose: Sequence[object], shown: Sequence[int], page: Sequence[int]) -> str | None:
    """With what a list goes on that has shown some and now a page; None where it is at its end."""
    so_far = [*shown, *page]
    return None if len(page) < top_k or len(so_far) > MOST_SHOWN else encode(so_far, *whose)


def _mark(whose: tuple[object, ...]) -> bytes:
    return blake2b(repr(whose).encode(), digest_size=_MARK).digest()
