"""Who may ask: API keys, of which only hashes are configured, and the role that operating takes."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request, Security
from fastapi.encoders import jsonable_encoder
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.errors import ConfigError
from recsys.settings import Settings

OPERATOR: Final = "operator"
_PREFIX: Final = "recsys_"  # by which scanners for secrets know one
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What says nothing of anybody, and what load balancers ask. The second ones are what `/docs` and `/console` load.
_OPEN: Final = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json", "/console"})
_OPEN_BELOW: Final = ("/docs/", "/static-offline-docs/", "/console/static/")
_HEADER: Final = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
_BEARER: Final = HTTPBearer(scheme_name="Bearer", auto_error=False)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


@dataclass(frozen=True)
class Key:
    """Attributes:
    name: for the log.
    sha256: of the secret, 64 hexadecimal digits; the secret is nowhere.
    operator: it may operate: publish, roll back.
    """

    name: str
    sha256: str = field(repr=False)
    operator: bool = False

    @property
    def entry(self) -> str:
        """What is configured."""
        return f"{self.name}:{self.sha256}" + (f":{OPERATOR}" if self.operator else "")


def make(name: str, *, operator: bool = False) -> tuple[str, Key]:
    """A new secret, and its key.

    Raises:
        ConfigError: the name is empty, too long or has other characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a key's name must be 1 to 64 letters, digits, '.', '_' or '-' (got {name!r})")
    secret = _PREFIX + secrets.token_urlsafe(32)
    return secret, Key(name, _hash(secret.encode()), operator)


def _hash(secret: bytes) -> str:
    """Without salt or rounds: what has 256 random bits cannot be guessed, and every request pays for this."""
    return hashlib.sha256(secret).hexdigest()


class Keys:
    """The keys that are configured."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def of(cls, settings: Settings) -> "Keys | None":
        """Read RECSYS_API_KEYS and the file that RECSYS_API_KEYS_FILE names; None: neither is set.

        Raises:
            ConfigError: an entry is none, or there twice, or the file cannot be read or has none; tells no entry's
                text, which could be a secret that was put there instead of its hash.
        """
        keys = _parse("RECSYS_API_KEYS", settings.api_keys.replace(",", "\n"))
        if (path := settings.api_keys_file) is not None:
            try:
                own = _parse("RECSYS_API_KEYS_FILE", path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"RECSYS_API_KEYS_FILE cannot be read (got {path}: {error})") from error
            if not own:
                raise ConfigError(f"RECSYS_API_KEYS_FILE has no key: `recsys key` makes one (got {path})")
            keys += own
        for what in ("name", "sha256"):
            if len({getattr(key, what) for key in keys}) < len(keys):
                raise ConfigError(f"two API keys have the same {what}: each must have its own")
        return cls(keys) if keys else None

    def find(self, secret: bytes) -> Key | None:
        """The key of a secret, in a time that says nothing of the others."""
        given, found = _hash(secret), None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found


def _parse(setting: str, text: str) -> list[Key]:
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        name, _, rest = said.partition(":")
        sha256, role, operator = rest.partition(":")
        if not (_NAME.fullmatch(name) and _SHA256.fullmatch(sha256)) or (role and operator != OPERATOR):
            raise ConfigError(f"{setting}: entry {number} must be NAME:SHA256 or NAME:SHA256:{OPERATOR}")
        keys.append(Key(name, sha256, bool(role)))
    return keys


class RequireKey:
    """Refuse who has no key (401) or one that is not known (403); whose key it is lies in the request's state."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        secret = _given(scope["headers"])
        key = None if secret is None else self._keys.find(secret)
        if key is None:
            await _refusal(secret)(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = key
        await self._app(scope, receive, send)


def _given(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    bearer = b""
    for name, value in headers:
        if name == b"x-api-key" and value.strip():
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return bearer or None


def _refusal(secret: bytes | None) -> ASGIApp:
    from api.errors import problem  # brings what answers are made from: seconds, and `recsys key` needs none of it

    if secret is not None:
        return problem(403, "there is no such API key")
    said = "this needs an API key: send it as X-API-Key, or as Authorization: Bearer"
    return problem(401, said, headers={"WWW-Authenticate": 'Bearer realm="recsys"'})


def key_of(scope: Scope) -> Key | None:
    """Whose request it is; None: no keys are configured, or none is needed."""
    key: Key | None = scope.get("state", {}).get("key")
    return key


async def _operator(
    request: Request, _: Annotated[Any, Security(_HEADER)] = None, __: Annotated[Any, Security(_BEARER)] = None
) -> Key:
    key = key_of(request.scope)
    if key is None:
        raise HTTPException(
            403, f"operating over HTTP is off: set RECSYS_API_KEYS to an entry with the role {OPERATOR} (`recsys key`)"
        )
    if not key.operator:
        raise HTTPException(403, f"this needs an API key with the role {OPERATOR}")
    return key


# What an endpoint for operating takes: the operator's key, or 403.
Operator = Annotated[Key, Depends(_operator)]


def document_keys(schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """Say in an OpenAPI document how a key is sent; where none is configured, that it may be left out."""
    schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
    for scheme in (_HEADER, _BEARER):
        schemes[scheme.scheme_name] = jsonable_encoder(scheme.model, by_alias=True, exclude_none=True)
    ways: list[dict[str, list[str]]] = [{name: []} for name in schemes]
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            if not is_open(path):
                operation.setdefault("security", ways if required else [{}, *ways])
    return schema
