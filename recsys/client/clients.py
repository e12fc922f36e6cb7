"""The two clients: one method an endpoint, the same in both."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, Self, Unpack

import httpx

from recsys.client import answers, asks, calls
from recsys.client.calls import A, Call, P
from recsys.client.exchange import Outcome, Patience, exchange

_KEY: Final = "X-API-Key"
_PATIENT: Final = Patience()


def _options(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    # A redirect is not followed: the key would go wherever it points.
    headers = {} if api_key is None else {_KEY: api_key}
    return {"base_url": base_url, "headers": headers, "timeout": timeout_s, "follow_redirects": False}


class Client:
    """Asks the API, a request at a time in each thread.

    Close it, or use it in `with`: it keeps connections open.

    Args:
        base_url: where the API is, like `http://127.0.0.1:8000`.
        api_key: sent as `X-API-Key`; None: none.
        timeout_s: seconds, of connecting and of each wait for the server.
        patience: how a request is tried again where that is safe: without a connection; where the server says when
            (429 and 503); after a lost answer if it may come twice (reads, blocks, hidden places, events by their id).
        transport: another way than the network, for tests.

    Raises, from every method:
        ApiError: the server refused.
        NoAnswer, UnexpectedAnswer: it did not answer, or not as such a server does.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None = None, timeout_s: float = 10.0, patience: Patience = _PATIENT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._patience = patience
        self._http = httpx.Client(transport=transport, **_options(base_url, api_key, timeout_s))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def root(self) -> answers.Root:
        """What the server is, and which version serves."""
        return self._send(calls.root())

    def health(self) -> answers.Health:
        """Whether the process is alive; asked once, not waited for."""
        return self._send(calls.health())

    def ready(self) -> answers.Ready:
        """Whether requests may come; asked once, not waited for: `Unavailable` says what is missing."""
        return self._send(calls.ready())

    def taxonomy(self) -> answers.Taxonomy:
        """What the positions of categories and tags mean in the live version."""
        return self._send(calls.taxonomy())

    def places(self, **asked: Unpack[asks.Places]) -> answers.Places:
        """Places of one city for one user, best first, with reasons."""
        return self._send(calls.places(asked))

    def place_pages(self, **asked: Unpack[asks.Places]) -> Iterator[answers.Places]:
        """The same list page by page, to its end."""
        return self._pages(calls.places(asked))

    def people(self, **asked: Unpack[asks.People]) -> answers.People:
        """People of one city for one user to go with, best first, with reasons."""
        return self._send(calls.people(asked))

    def people_pages(self, **asked: Unpack[asks.People]) -> Iterator[answers.People]:
        """The same list page by page, to its end."""
        return self._pages(calls.people(asked))

    def groups(self, **asked: Unpack[asks.Groups]) -> answers.Groups:
        """Places of one city that suit several users."""
        return self._send(calls.groups(asked))

    def group_pages(self, **asked: Unpack[asks.Groups]) -> Iterator[answers.Groups]:
        """The same list page by page, to its end."""
        return self._pages(calls.groups(asked))

    def explain(self, **asked: Unpack[asks.Explain]) -> answers.Explanation:
        """Why a place or a person is in somebody's list, or why not."""
        return self._send(calls.explain(asked))

    def events(self, told: Sequence[asks.Event]) -> answers.EventsTaken:
        """What people did, 1 to 1,000 events: on disk when this returns."""
        return self._send(calls.events(told))

    def blocks(self, user_id: asks.Id) -> answers.Blocks:
        """Whom a user blocked."""
        return self._send(calls.blocks(user_id))

    def block(self, user_id: asks.Id, others: Sequence[asks.Id]) -> answers.Blocks:
        """Keep a user apart from others: neither is recommended to the other from now on."""
        return self._send(calls.block(user_id, others))

    def unblock(self, user_id: asks.Id, others: Sequence[asks.Id]) -> answers.Blocks:
        """Take a user's own blocks back; a block by the other one stays."""
        return self._send(calls.unblock(user_id, others))

    def hidden(self, place_id: asks.Id) -> answers.Hidden:
        """Whether a place is hidden."""
        return self._send(calls.hidden(place_id))

    def hide(self, place_id: asks.Id) -> answers.Hidden:
        """Hide a place from everybody, from now on."""
        return self._send(calls.hide(place_id))

    def show(self, place_id: asks.Id) -> answers.Hidden:
        """Show a place again."""
        return self._send(calls.show(place_id))

    def _pages(self, call: Call[P]) -> Iterator[P]:
        following: Call[P] | None = call
        while following is not None:
            page = self._send(following)
            yield page
            following = calls.following(following, page)

    def _send(self, call: Call[A]) -> A:
        steps = exchange(call, self._patience)
        wait_s = next(steps)
        while True:
            if wait_s:
                time.sleep(wait_s)
            outcome: Outcome
            try:
                outcome = self._http.request(call.method, call.path, params=call.params, json=call.body)
            except httpx.TransportError as error:
                outcome = error
            try:
                wait_s = steps.send(outcome)
            except StopIteration as ended:
                answer: A = ended.value
                return answer


class AsyncClient:
    """The same for asyncio.

    Close it, or use it in `async with`: it keeps connections open.

    Args:
        base_url: where the API is, like `http://127.0.0.1:8000`.
        api_key: sent as `X-API-Key`; None: none.
        timeout_s: seconds, of connecting and of each wait for the server.
        patience: how a request is tried again where that is safe: without a connection; where the server says when
            (429 and 503); after a lost answer if it may come twice (reads, blocks, hidden places, events by their id).
        transport: another way than the network, for tests.

    Raises, from every method:
        ApiError: the server refused.
        NoAnswer, UnexpectedAnswer: it did not answer, or not as such a server does.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None = None, timeout_s: float = 10.0, patience: Patience = _PATIENT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._patience = patience
        self._http = httpx.AsyncClient(transport=transport, **_options(base_url, api_key, timeout_s))

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def root(self) -> answers.Root:
        """What the server is, and which version serves."""
        return await self._send(calls.root())

    async def health(self) -> answers.Health:
        """Whether the process is alive; asked once, not waited for."""
        return await self._send(calls.health())

    async def ready(self) -> answers.Ready:
        """Whether requests may come; asked once, not waited for: `Unavailable` says what is missing."""
        return await self._send(calls.ready())

    async def taxonomy(self) -> answers.Taxonomy:
        """What the positions of categories and tags mean in the live version."""
        return await self._send(calls.taxonomy())

    async def places(self, **asked: Unpack[asks.Places]) -> answers.Places:
        """Places of one city for one user, best first, with reasons."""
        return await self._send(calls.places(asked))

    def place_pages(self, **asked: Unpack[asks.Places]) -> AsyncIterator[answers.Places]:
        """The same list page by page, to its end."""
        return self._pages(calls.places(asked))

    async def people(self, **asked: Unpack[asks.People]) -> answers.People:
        """People of one city for one user to go with, best first, with reasons."""
        return await self._send(calls.people(asked))

    def people_pages(self, **asked: Unpack[asks.People]) -> AsyncIterator[answers.People]:
        """The same list page by page, to its end."""
        return self._pages(calls.people(asked))

    async def groups(self, **asked: Unpack[asks.Groups]) -> answers.Groups:
        """Places of one city that suit several users."""
        return await self._send(calls.groups(asked))

    def group_pages(self, **asked: Unpack[asks.Groups]) -> AsyncIterator[answers.Groups]:
        """The same list page by page, to its end."""
        return self._pages(calls.groups(asked))

    async def explain(self, **asked: Unpack[asks.Explain]) -> answers.Explanation:
        """Why a place or a person is in somebody's list, or why not."""
        return await self._send(calls.explain(asked))

    async def events(self, told: Sequence[asks.Event]) -> answers.EventsTaken:
        """What people did, 1 to 1,000 events: on disk when this returns."""
        return await self._send(calls.events(told))

    async def blocks(self, user_id: asks.Id) -> answers.Blocks:
        """Whom a user blocked."""
        return await self._send(calls.blocks(user_id))

    async def block(self, user_id: asks.Id, others: Sequence[asks.Id]) -> answers.Blocks:
        """Keep a user apart from others: neither is recommended to the other from now on."""
        return await self._send(calls.block(user_id, others))

    async def unblock(self, user_id: asks.Id, others: Sequence[asks.Id]) -> answers.Blocks:
        """Take a user's own blocks back; a block by the other one stays."""
        return await self._send(calls.unblock(user_id, others))

    async def hidden(self, place_id: asks.Id) -> answers.Hidden:
        """Whether a place is hidden."""
        return await self._send(calls.hidden(place_id))

    async def hide(self, place_id: asks.Id) -> answers.Hidden:
        """Hide a place from everybody, from now on."""
        return await self._send(calls.hide(place_id))

    async def show(self, place_id: asks.Id) -> answers.Hidden:
        """Show a place again."""
        return await self._send(calls.show(place_id))

    async def _pages(self, call: Call[P]) -> AsyncIterator[P]:
        following: Call[P] | None = call
        while following is not None:
            page = await self._send(following)
            yield page
            following = calls.following(following, page)

    async def _send(self, call: Call[A]) -> A:
        steps = exchange(call, self._patience)
        wait_s = next(steps)
        while True:
            if wait_s:
                await asyncio.sleep(wait_s)
            outcome: Outcome
            try:
                outcome = await self._http.request(call.method, call.path, params=call.params, json=call.body)
            except httpx.TransportError as error:
                outcome = error
            try:
                wait_s = steps.send(outcome)
            except StopIteration as ended:
                answer: A = ended.value
                return answer
