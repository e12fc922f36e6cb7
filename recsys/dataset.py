"""What names a data set: by it, the events, decisions and impressions of one never reach another."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

_WORLD: Final = ("name", "preset", "seed", "users", "places")


def world_of(source: Mapping[str, Any]) -> str:
    """What names a data set's event log, decisions and impressions.

    Args:
        source: what `source.json` says about the data set.

    Returns:
        Eight hexadecimal digits; the same for every batch of one data set.
    """
    known = json.dumps({name: source.get(name) for name in _WORLD}, sort_keys=True)
    return sha256(known.encode()).hexdigest()[:8]
