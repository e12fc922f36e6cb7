"""The console: one page to see what is recommended and why, and the few endpoints that it needs besides the others."""

from typing import Any

from fastapi import FastAPI

from api import errors
from api.console import lists, operate, pages, people, places, queries
from api.console.desk import Desk
from recsys.settings import Settings

_PARTS = (pages, people, places, lists, operate, queries)


def add_console(app: FastAPI, settings: Settings) -> None:
    """Give an app the page at `/console` and what stands behind it.

    Its endpoints change with the page, so they are no part of the API's contract: they have a document of their own.
    """
    app.state.desk = Desk(settings)
    for part in _PARTS:
        app.include_router(part.router, include_in_schema=False)
    app.add_api_route("/console/openapi.json", _document, include_in_schema=False)
    app.mount(pages.FILES_AT, pages.FILES, name="console-files")


async def _document() -> dict[str, Any]:
    """The OpenAPI document of the console's endpoints."""
    own = FastAPI(title="recsys console", summary="What the page at /console asks for; it changes with the page.")
    for part in _PARTS:
        own.include_router(part.router)
    return errors.document_problems(own.openapi())
