"""The page itself and its files: from this server alone, and nothing in them runs but the page's own scripts."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_HERE: Final = Path(__file__).parent / "static"
FILES_AT: Final = "/console/static"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-cache",  # asked each time, answered by 304: a new release shows at once
}

router = APIRouter(tags=["console"])


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(_HEADERS)
        return answer


FILES: Final = _Files(directory=_HERE)


@router.get("/console", response_class=HTMLResponse)
async def console() -> HTMLResponse:
    """The console: a page for browsers."""
    return HTMLResponse((_HERE / "console.html").read_text(encoding="utf-8"), headers=_HEADERS)
