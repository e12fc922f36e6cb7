"""Files → a first mapping, with a comment on every guess: what to check before it is used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from recsys.errors import DataError
from recsys.workbench import Workbench, reading

# key → names that such a column goes by, the most telling first
_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "user": ("user_id", "userid", "user", "member", "customer", "visitor", "person", "account"),
    "place": (
        "place_id",
        "venue_id",
        "place",
        "venue",
        "poi",
        "location_id",
        "business_id",
        "business",
        "item",
        "shop",
    ),
    "time": ("timestamp", "checked_in_at", "time", "datetime", "created_at", "date", "occurred", "ts", "at"),
    "kind": ("event_type", "event", "action", "kind", "type"),
    "dwell": ("dwell_time", "dwell", "duration", "seconds"),
    "rating": ("rating", "stars", "score"),
    "category": ("category", "venue_category", "cuisine", "genre"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng", "long"),
}
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("place_id", "venue_id", "business_id", "poi_id", "place", "venue", "id"),
    "name": ("name", "title", "place_name", "venue_name"),
    "category": _EVENTS["category"],
    "group": ("group", "main_category", "parent_category"),
    "price": ("price_band", "price", "price_level"),
    "neighborhood": ("neighborhood", "neighbourhood", "district", "area", "borough"),
    "latitude": _EVENTS["latitude"],
    "longitude": _EVENTS["longitude"],
}
_USERS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("user_id", "userid", "member_id", "customer_id", "user", "id"),
    "name": ("name", "user_name", "username", "nickname"),
}
_FRIENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "a": ("user_a", "user1", "user_1", "user_u", "from", "source", "a", "user_id"),
    "b": ("user_b", "user2", "user_2", "user_v", "to", "target", "b", "friend_id"),
    "since": ("since", "created_at", "timestamp", "date"),
}
_OFTEN: Final = 12  # names of events that are listed


def suggest(bench: Workbench, files: Sequence[Path]) -> str:
    """Write a mapping for some files: which is events, places, users or friendships is guessed by their columns.

    Args:
        bench: to look into the files with.
        files: CSV, parquet or JSON lines.

    Returns:
        TOML with comments.

    Raises:
        DataError: a file is not there or cannot be read, or none looks like events.
    """
    parts: dict[str, list[str]] = {"events": [], "places": [], "users": [], "friendships": []}
    unclear = []
    for path in files:
        if not path.is_file():
            raise DataError(f"no such file (got {path})")
        relation = reading([path])
        columns = bench.columns(relation)
        kind, found = _kind(list(columns))
        if kind is None:
            unclear.append(
                f"# {path}: nothing here looks like events, places, users or friendships: {', '.join(columns)}"
            )
            continue
        lines = [f'files = "{path.resolve()}"']
        lines += [f'{key} = "{column}"{_doubt(columns[column], key)}' for key, column in found.items()]
        left = [c for c in columns if c not in found.values()]
        if left:
            lines.append(f"# not used: {', '.join(left)}")
        if "kind" in found:
            names = bench.rows(
                f'SELECT "{found["kind"]}"::VARCHAR AS name, count(*) AS n FROM {relation} '
                "GROUP BY ALL ORDER BY n DESC, name"
            )
            lines.append('# what each name is: "view", "like", "save", "share", "attended" or "ignore"')
            lines.append(
                "kinds = { " + ", ".join(f'"{r["name"]}" = "{_guess(r["name"])}"' for r in names[:_OFTEN]) + " }"
            )
        if kind == "friendships" and "since" not in found:
            known = "end" if "after" in path.stem.lower() else "start"
            lines.append(
                f'known = "{known}"  # nothing says since when: known before all events ("start") or after ("end")'
            )
        parts[kind] += ["", "[[source.friendships]]" if kind == "friendships" else f"[source.{kind}]", *lines]
    if not parts["events"]:
        raise DataError("none of the files looks like events: a user, a place and a time in each row "
                        f"(got {', '.join(p.name for p in files)})")  # fmt: skip
    head = [
        "# A first mapping, guessed from the files: check every line, then `recsys ingest` it.",
        'name = "own"',
        "",
        "[[source]]",
        'name = "city"  # a short name; ids are numbered within it',
        'city = "City"  # as people call it',
        'timezone = "UTC"  # of moments that do not say theirs, such as "Europe/Berlin"',
    ]
    return "\n".join([*head, *(line for lines in parts.values() for line in lines), *unclear]) + "\n"


def _kind(columns: list[str]) -> tuple[str | None, dict[str, str]]:
    """What a file is, and its columns by key."""
    friends = _matched(columns, _FRIENDS)
    if {"a", "b"} <= friends.keys() and len(columns) <= 4:
        return "friendships", friends
    events = _matched(columns, _EVENTS)
    if {"user", "place", "time"} <= events.keys():
        return "events", events
    places, users = _matched(columns, _PLACES), _matched(columns, _USERS)
    if "id" in places and len(places) >= 2 and (places["id"] != "id" or len(places) > len(users)):
        return "places", places
    return ("users", users) if "id" in users else (None, {})


def _matched(columns: list[str], names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Key → column: an equal name first, then one that holds it; a column stands for one key."""
    found: dict[str, str] = {}
    for exact in (True, False):
        for key, known in names.items():
            if key in found:
                continue
            for name in known:
                hits = [
                    c
                    for c in columns
                    if c not in found.values() and (c.lower() == name if exact else len(name) > 3 and name in c.lower())
                ]
                if hits:
                    found[key] = hits[0]
                    break
    return {key: found[key] for key in names if key in found}


def _doubt(type_: str, key: str) -> str:
    if key == "time" and type_.startswith("TIMESTAMP") and "ZONE" not in type_:
        return "  # without a zone: taken as wall clock in `timezone`"
    if key == "time" and not type_.startswith(("TIMESTAMP", "DATE")):
        return f"  # {type_}: parsed as a moment"
    return ""


def _guess(name: str | None) -> str:
    lowered = (name or "").lower()
    for kind, parts in {
        "attended": ("check", "visit", "attend", "book", "purchase", "order"),
        "like": ("like", "fav", "love"),
        "save": ("save", "bookmark", "wish", "list"),
        "share": ("share", "send", "forward"),
        "view": ("view", "click", "open", "impression", "browse"),
    }.items():
        if any(part in lowered for part in parts):
            return kind
    return "ignore"
