"""Every request that there is, as what is sent and what comes back. Nothing here sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic_core import to_jsonable_python

from recsys.client import answers, asks

A = TypeVar("A", bound=answers.Answer, covariant=True)
P = TypeVar("P", bound=answers.Page)


@dataclass(frozen=True)
class Call(Generic[A]):
    """One request.

    Attributes:
        answer: what comes back.
        body: JSON; None: none.
        params: of the query.
        repeatable: sent twice, it does what it does once.
        patient: "try again later" is to be waited for.
    """

    method: str
    path: str
    answer: type[A]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    patient: bool = True


def root() -> Call[answers.Root]:
    """What the server is."""
    return Call("GET", "/", answers.Root)


def health() -> Call[answers.Health]:
    """Whether the process is alive."""
    return Call("GET", "/health", answers.Health, patient=False)


def ready() -> Call[answers.Ready]:
    """Whether requests may come: the answer is asked for, not waited for."""
    return Call("GET", "/ready", answers.Ready, patient=False)


def taxonomy() -> Call[answers.Taxonomy]:
    """What positions mean."""
    return Call("GET", "/taxonomy", answers.Taxonomy)


def places(asked: asks.Places) -> Call[answers.Places]:
    """Places for one user. Not repeatable, like all lists: each that is sent counts as shown."""
    return Call("POST", "/recommend/places", answers.Places, _body(asked), repeatable=False)


def people(asked: asks.People) -> Call[answers.People]:
    """People for one user."""
    return Call("POST", "/recommend/people", answers.People, _body(asked), repeatable=False)


def groups(asked: asks.Groups) -> Call[answers.Groups]:
    """Places for several users."""
    return Call("POST", "/recommend/groups", answers.Groups, _body(asked), repeatable=False)


def explain(asked: asks.Explain) -> Call[answers.Explanation]:
    """Why, and why not."""
    return Call("POST", "/explain", answers.Explanation, _body(asked))


def events(told: Sequence[asks.Event]) -> Call[answers.EventsTaken]:
    """What people did. Repeatable: an id counts once.

    Raises:
        ValueError: a timestamp has no offset, so it could be any zone's.
    """
    for event in told:
        at = event.get("timestamp")
        if isinstance(at, datetime) and at.tzinfo is None:
            raise ValueError(f"a timestamp needs an offset (got {at.isoformat()} in event {event['id']!r})")
    return Call("POST", "/events", answers.EventsTaken, _body({"events": list(told)}))


def blocks(user_id: asks.Id) -> Call[answers.Blocks]:
    """Whom a user blocked."""
    return Call("GET", f"/users/{_segment(user_id)}/blocks", answers.Blocks)


def block(user_id: asks.Id, others: Sequence[asks.Id]) -> Call[answers.Blocks]:
    """Keep a user apart from others."""
    return Call("PUT", f"/users/{_segment(user_id)}/blocks", answers.Blocks, _body({"user_ids": list(others)}))


def unblock(user_id: asks.Id, others: Sequence[asks.Id]) -> Call[answers.Blocks]:
    """Take a user's own blocks back."""
    params = {"blocked_id": [_text(other) for other in others]}
    return Call("DELETE", f"/users/{_segment(user_id)}/blocks", answers.Blocks, params=params)


def hidden(place_id: asks.Id) -> Call[answers.Hidden]:
    """Whether a place is hidden."""
    return Call("GET", f"/places/{_segment(place_id)}/hidden", answers.Hidden)


def hide(place_id: asks.Id) -> Call[answers.Hidden]:
    """Hide a place from everybody."""
    return Call("PUT", f"/places/{_segment(place_id)}/hidden", answers.Hidden)


def show(place_id: asks.Id) -> Call[answers.Hidden]:
    """Show a place again."""
    return Call("DELETE", f"/places/{_segment(place_id)}/hidden", answers.Hidden)


def following(call: Call[P], page: P) -> Call[P] | None:
    """What asks for the next page; None: that was the last."""
    if page.next_cursor is None:
        return None
    return replace(call, body={**(call.body or {}), "cursor": page.next_cursor})


def _body(asked: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = to_jsonable_python(asked)
    return body


def _text(given: asks.Id) -> str:
    """An id as it stands in an address, where there are only letters: digits are our number.

    Raises:
        ValueError: a source's id of digits alone, which would be taken for our number.
    """
    if isinstance(given, str) and given.isascii() and given.isdigit():
        raise ValueError(f"an id of digits needs its source, like 'source:{given}', or is a number (got {given!r})")
    return str(given)


def _segment(given: asks.Id) -> str:
    # Dots too: "." and ".." alone would be steps between folders.
    return quote(_text(given), safe="").replace(".", "%2E")
