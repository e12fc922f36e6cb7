"""Who is kept apart from whom, and which places nobody is shown: endpoints whose effect outlives everything."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Path, Query

from api.middleware import request_id
from api.routes import ERRORS, Live
from api.safety_schemas import BlocksRequest, BlocksResponse, HiddenResponse, Place
from api.schemas import User
from api.state import State
from recsys.errors import FeatureStoreUnavailable, InvalidField, UnknownPlace, UnknownUser
from recsys.recommend.engine import Engine
from recsys.recommend.reads import Reads

_ANY_ID: Final = "our number (digits alone), or the source's own id (`source:id` where it is digits, or two have it)"
_Text = Annotated[str, Path(min_length=1, max_length=200)]
UserId = Annotated[_Text, Path(description=f"who: {_ANY_ID}", examples=["42"])]
PlaceId = Annotated[_Text, Path(description=f"which: {_ANY_ID}", examples=["17"])]
Unblocked = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=200)]],
    Query(
        min_length=1,
        max_length=1_000,
        description=f"whose block to take back: {_ANY_ID}; may repeat",
        examples=[["7", "8"]],
    ),
]

router = APIRouter(tags=["safety"], responses=ERRORS)


@router.get("/users/{user_id:path}/blocks")
async def blocks(user_id: UserId, state: Live) -> BlocksResponse:
    """Whom a user blocked."""
    engine = state.require()
    user = _user(engine, "user_id", user_id)
    await asyncio.to_thread(engine.safety.refresh)
    return _blocks(engine, user)


@router.put("/users/{user_id:path}/blocks")
async def block(user_id: UserId, body: BlocksRequest, state: Live) -> BlocksResponse:
    """Keep a user apart from others: neither is recommended to the other, in any answer from now on."""
    engine = state.require()
    user = _user(engine, "user_id", user_id)
    others = [engine.users.number(f"user_ids.{i}", given) for i, given in enumerate(body.user_ids)]
    if user in others:
        raise InvalidField(f"user_ids.{others.index(user)}", f"nobody can block themselves (got {user})")
    await _exist(state, users=[user, *others])
    await asyncio.to_thread(engine.safety.block, user, others, state.now())
    return _blocks(engine, user)


@router.delete("/users/{user_id:path}/blocks")
async def unblock(user_id: UserId, blocked_id: Unblocked, state: Live) -> BlocksResponse:
    """Take a user's own blocks back; a block by the other one stays."""
    engine = state.require()
    user = _user(engine, "user_id", user_id)
    others = [_user(engine, "blocked_id", given) for given in blocked_id]
    await asyncio.to_thread(lambda: engine.safety.block(user, others, state.now(), on=False))
    return _blocks(engine, user)


@router.get("/places/{place_id:path}/hidden")
async def hidden(place_id: PlaceId, state: Live) -> HiddenResponse:
    """Whether a place is hidden."""
    engine = state.require()
    place = engine.places.number("place_id", _given(place_id))
    await asyncio.to_thread(engine.safety.refresh)
    return _hidden(engine, place)


@router.put("/places/{place_id:path}/hidden")
async def hide(place_id: PlaceId, state: Live) -> HiddenResponse:
    """Hide a place from everybody, in any answer from now on."""
    engine = state.require()
    place = engine.places.number("place_id", _given(place_id))
    await _exist(state, places=[place])
    await asyncio.to_thread(engine.safety.hide, place, state.now())
    return _hidden(engine, place)


@router.delete("/places/{place_id:path}/hidden")
async def show(place_id: PlaceId, state: Live) -> HiddenResponse:
    """Show a place again."""
    engine = state.require()
    place = engine.places.number("place_id", _given(place_id))
    await asyncio.to_thread(lambda: engine.safety.hide(place, state.now(), on=False))
    return _hidden(engine, place)


async def _exist(state: State, *, users: Sequence[int] = (), places: Sequence[int] = ()) -> None:
    """Refuse ids that are nowhere in the data. Where nobody can say, they are taken: safety closes.

    Raises:
        UnknownUser, UnknownPlace: names the first.
    """
    reads = Reads(state.require(), state.now(), strict=True)
    strange_users = [i for i in users if not np.isin(i, state.known_users)]
    strange_places = [i for i in places if not np.isin(i, state.known_places)]
    try:
        found_users = await asyncio.to_thread(reads.users, strange_users) if strange_users else []
        found_places = await asyncio.to_thread(reads.places, strange_places) if strange_places else []
    except FeatureStoreUnavailable:
        return
    for user_id, user in zip(strange_users, found_users, strict=True):
        if user is None:
            raise UnknownUser(f"there is no user {user_id}")
    for place_id, place in zip(strange_places, found_places, strict=True):
        if place is None:
            raise UnknownPlace(f"there is no place {place_id}")


def _given(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and int(text) < 2**63 else text


def _user(engine: Engine, field: str, text: str) -> int:
    return engine.users.number(field, _given(text))


def _blocks(engine: Engine, user_id: int) -> BlocksResponse:
    users = [User(user_id=i, **vars(engine.users.own(i))) for i in (user_id, *engine.safety.blocks(user_id))]
    return BlocksResponse(user=users[0], blocks=users[1:], request_id=request_id.get())


def _hidden(engine: Engine, place_id: int) -> HiddenResponse:
    place = Place(place_id=place_id, **vars(engine.places.own(place_id)))
    is_hidden = bool(engine.safety.is_hidden(np.array([place_id]))[0])
    return HiddenResponse(place=place, hidden=is_hidden, request_id=request_id.get())
