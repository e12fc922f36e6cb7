"""One request from first try to last, without sending: what both clients share."""

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import ValidationError

from recsys.client.calls import A, Call
from recsys.client.errors import ApiError, ClientError, NoAnswer, UnexpectedAnswer, refusal

_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_LATER: Final = (429, 503)
Outcome = httpx.Response | httpx.TransportError


@dataclass(frozen=True)
class Patience:
    """How a request is tried again.

    Attributes:
        retries: times after the first.
        first_wait_s: seconds before the first of them, where the server did not say; twice as long each time.
        most_wait_s: seconds; what would take longer is not waited for.
    """

    retries: int = 2
    first_wait_s: float = 0.1
    most_wait_s: float = 5.0


def exchange(call: Call[A], patience: Patience) -> Generator[float, Outcome, A]:
    """Say when to send, hear what came of it, and end with the answer.

    Yields:
        Seconds to wait before the request is sent, the first time 0. What is sent back in is the answer, or why there
        is none.

    Raises:
        ClientError: there is no answer, or a refusal, and it is not to be tried again.
    """
    wait_s = 0.0
    for tries_left in range(patience.retries, -1, -1):
        outcome = yield wait_s
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return _read(call, outcome)
        error, again_s = _judge(call, outcome, patience.first_wait_s * 2 ** (patience.retries - tries_left))
        if again_s is None or again_s > patience.most_wait_s or not tries_left:
            raise error from (outcome if isinstance(outcome, Exception) else None)
        wait_s = again_s
    raise AssertionError("the last try returns or raises")


def _judge(call: Call[A], outcome: Outcome, pause_s: float) -> tuple[ClientError, float | None]:
    """What to raise, and in how many seconds it may be tried again; None: not at all."""
    if isinstance(outcome, httpx.TransportError):
        said = str(outcome) or "no answer in time"
        error = NoAnswer(f"{call.method} {call.path}: {type(outcome).__name__}: {said}")
        # As many clients as lost one server must not all come back at one moment.
        again = call.repeatable or isinstance(outcome, _NEVER_SENT)
        return error, random.uniform(pause_s / 2, pause_s) if again else None
    if outcome.status_code < 400:
        said = f"{outcome.status_code} {outcome.reason_phrase}"
        return UnexpectedAnswer(f"{call.method} {call.path}: {said}"), None
    refused: ApiError = refusal(outcome)
    # The server has done nothing: it is safe whatever was asked.
    later = call.patient and refused.status in _LATER
    return refused, refused.retry_after_s if later else None


def _read(call: Call[A], response: httpx.Response) -> A:
    try:
        return call.answer.model_validate_json(response.content)
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise UnexpectedAnswer(f"{call.method} {call.path}: {what}") from error
