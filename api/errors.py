"""Errors → answers. The one place with status codes; what was not raised on purpose never tells its text."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.fields import NUMBER, TEXT
from api.middleware import request_id
from api.schemas import FieldError, Problem
from recsys.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    EventLogUnavailable,
    FeatureStoreUnavailable,
    IndexUnavailable,
    InvalidField,
    JobRefused,
    JobTooSlow,
    NotFound,
    NotReady,
    RecsysError,
    SafetyUnavailable,
    Unavailable,
)

_LOG = structlog.get_logger("api")
_RETRY_AFTER_S = "1"
_STATUS: tuple[tuple[type[RecsysError], int], ...] = (
    (NotFound, 404),
    (InvalidField, 422),
    (JobRefused, 409),
    (Unavailable, 503),
    (NotReady, 503),
    (ConfigError, 500),
    (DataError, 500),
    (ArtifactError, 500),
    (RecsysError, 500),
)
# Which part, and no more: addresses and the vendors' own words are for the log.
_PART: dict[type[RecsysError], str] = {
    FeatureStoreUnavailable: "the online store did not answer in time",
    IndexUnavailable: "the vector index did not answer in time",
    EventLogUnavailable: "the event log did not take the events in time",
    SafetyUnavailable: "the list of blocks and hidden places did not answer in time",
    JobTooSlow: "the command did not end in time, and was stopped",
    Unavailable: "a part did not answer in time",
}


def problem(
    status: int, detail: str, *, errors: list[FieldError] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """One error answer."""
    body = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=request_id.get(), errors=errors or []
    )
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Map every error that a route raises on purpose; `api.middleware` answers for the rest."""
    app.add_exception_handler(RecsysError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def document_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Give every error answer of an OpenAPI document the content type that it has: FastAPI assumes JSON."""
    for methods in schema["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                if int(status) >= 400 and "application/json" in content:
                    content["application/problem+json"] = content.pop("application/json")
    return schema


async def _ours(_: Request, error: Exception) -> JSONResponse:
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    if status == 500:
        _LOG.error("unexpected", exc_info=error)
        return unexpected()
    headers = {"Retry-After": _RETRY_AFTER_S} if status == 503 else None
    if status == 503:
        _LOG.warning("unavailable", error=type(error).__name__, detail=str(error))
    if isinstance(error, InvalidField):
        return problem(status, str(error), errors=[FieldError(field=error.field, message=error.message)])
    detail = next((said for kind, said in _PART.items() if isinstance(error, kind)), str(error))
    return problem(status, detail, headers=headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = []
    for e in error.errors():
        where = [str(part) for part in e["loc"] if part not in ("body", "path", "query", TEXT, NUMBER)] or ["body"]
        errors.append(FieldError(field=".".join(where), message=str(e["msg"])))
    return problem(422, f"{errors[0].field}: {errors[0].message}", errors=errors)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of the first route with the path only
        documented = request.app.openapi()["paths"].get(getattr(request.scope.get("route"), "path_format", None), {})
        headers |= {"Allow": ", ".join(sorted(m.upper() for m in documented))} if documented else {}
    return problem(error.status_code, str(error.detail), headers=headers or None)


def unexpected() -> JSONResponse:
    """The answer to what nobody foresaw."""
    return problem(500, "something went wrong here; the request id finds it in the log")
