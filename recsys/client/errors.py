"""What can go wrong, of the client's own, since it runs where nothing else of this project does::

ClientError
├── NoAnswer                none came: no connection, or not in time
├── UnexpectedAnswer        one came that no such server gives
└── ApiError                the server refused; has the fields of its answer
    ├── BadRequest          400
    ├── Unauthorized        401
    ├── Forbidden           403
    ├── NotFound            404
    ├── TooLarge            413
    ├── InvalidField        422, `errors` names each field
    ├── TooManyRequests     429
    ├── ServerFault         500
    └── Unavailable         503
"""

from collections.abc import Sequence
from typing import Final

import httpx
from pydantic import ValidationError

from recsys.client.answers import FieldError, Problem


class ClientError(Exception):
    """Root of the tree."""


class NoAnswer(ClientError):
    """None came. Whether the server did what it was asked is not known, but if there was no connection."""


class UnexpectedAnswer(ClientError):
    """One came that no such server gives: perhaps it is another one, or a proxy's."""


class ApiError(ClientError):
    """The server refused.

    Attributes:
        status: of HTTP.
        title: what it is called.
        detail: what is wrong, in one sentence.
        request_id: finds it in the server's log; empty: something before the server refused.
        errors: of 422, every field that is wrong.
        retry_after_s: seconds, after which it may be asked again; None: it does not say.
    """

    def __init__(
        self, status: int, title: str, detail: str, request_id: str, errors: Sequence[FieldError],
        retry_after_s: float | None,
    ) -> None:  # fmt: skip
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.title, self.detail, self.request_id = status, title, detail, request_id
        self.errors, self.retry_after_s = tuple(errors), retry_after_s


class BadRequest(ApiError):
    """400: the body cannot be read."""


class Unauthorized(ApiError):
    """401: an API key is needed."""


class Forbidden(ApiError):
    """403: the API key is not known, or may not do this."""


class NotFound(ApiError):
    """404: no such user, place or city."""


class TooLarge(ApiError):
    """413: the body is too large."""


class InvalidField(ApiError):
    """422: a field is out of its range; `errors` names each."""


class TooManyRequests(ApiError):
    """429: more requests than may be."""


class ServerFault(ApiError):
    """500: a fault of the server's."""


class Unavailable(ApiError):
    """503: a part does not answer, or nothing is published yet."""


_KINDS: Final[dict[int, type[ApiError]]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 413: TooLarge, 422: InvalidField,
    429: TooManyRequests, 500: ServerFault, 503: Unavailable,
}  # fmt: skip
_MOST_SHOWN: Final = 200  # characters of what a proxy says


def refusal(response: httpx.Response) -> ApiError:
    """The error that an answer of 400 or more is."""
    kind = _KINDS.get(response.status_code, ApiError)
    wait = response.headers.get("retry-after", "")
    retry_after_s = float(wait) if wait.isascii() and wait.isdigit() else None
    try:
        said = Problem.model_validate_json(response.content)
    except ValidationError:  # not the server's own
        text = " ".join(response.text.split())[:_MOST_SHOWN]
        said = Problem(
            title=response.reason_phrase, status=response.status_code, detail=text,
            request_id=response.headers.get("x-request-id", ""),
        )  # fmt: skip
    return kind(response.status_code, said.title, said.detail, said.request_id, said.errors, retry_after_s)
