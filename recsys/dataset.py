"""What names a data set: by it, the events, decisions and impressions of one never reach another."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from recsys.errors import DataError

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


def read_source(folder: Path) -> dict[str, Any]:
    """The `source.json` of a landing or lake folder; empty when there is none.

    Raises:
        DataError: it is not one JSON object.
    """
    path = folder / "source.json"
    if not path.exists():
        return {}
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(source, dict):
        raise DataError(f"{path.name} must be one JSON object (got {type(source).__name__})")
    return source
