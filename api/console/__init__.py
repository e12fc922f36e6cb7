"""The console: one page to see what is recommended and why, and the few endpoints that it needs besides the others."""

from fastapi import FastAPI

from api.console import lists, operate, pages, people, places, queries
from api.console.desk import Desk
from recsys.settings import Settings


def add_console(app: FastAPI, settings: Settings) -> None:
    """Give an app the page at `/console` and what stands behind it."""
    app.state.desk = Desk(settings)
    for part in (pages, people, places, lists, operate, queries):
        app.include_router(part.router, include_in_schema=False)  # the page's own: no promise to anybody else
    app.mount(pages.FILES_AT, pages.FILES, name="console-files")
