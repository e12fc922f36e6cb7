"""A typed client of the API: `Client`, `AsyncClient`. It needs httpx and pydantic, and nothing else of this project."""

from recsys.client.clients import AsyncClient, Client
from recsys.client.errors import (
    ApiError,
    BadRequest,
    ClientError,
    Forbidden,
    InvalidField,
    NoAnswer,
    NotFound,
    ServerFault,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from recsys.client.exchange import Patience

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Client",
    "ClientError",
    "Forbidden",
    "InvalidField",
    "NoAnswer",
    "NotFound",
    "Patience",
    "ServerFault",
    "TooLarge",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
]
