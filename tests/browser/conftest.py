"""A browser, and the console served from a copy of the 300 x 300 world in which some names are hostile."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, Request, Response, expect, sync_playwright

from jobs.scorecard import FILE
from recsys.artifacts import open_artifact, save_artifact
from recsys.lake import Lake
from recsys.models.ranker import MODEL
from recsys.sources import SOURCES
from tests.conftest import ROOT
from tests.installed import Installation, copied, serving

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
BACKWARDS = "\u202eevil\u2066 txet"  # a right-to-left override that nobody closes
LONG = "A" * 10_000
SECOND = "second"
# Features of places as they are, so that two answers to one question agree; and whole answers on a busy machine
PATIENT = {"RECSYS_FEATURE_CACHE_S": "0", "RECSYS_ONLINE_TIMEOUT_MS": "5000", "RECSYS_INDEX_TIMEOUT_MS": "5000"}
HOSTILE = (SCRIPT, BACKWARDS, LONG)


@dataclass
class Served:
    """The world whose console is looked at."""

    base: str
    made: Installation
    api: httpx.Client
    hostile_city: int  # each of its places has one of the hostile names
    hostile_user: int


@pytest.fixture(scope="package")
def console_world(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A copy, in whose smallest city every place, and one of whose people, has a hostile name."""
    made = copied(installed, tmp_path_factory.mktemp("console"))
    places = pq.read_table(made.data / "lake" / "places.parquet")
    cities = places["city_id"].to_pylist()
    smallest = min(set(cities), key=cities.count)
    names = [
        HOSTILE[i % len(HOSTILE)] if city == smallest else name
        for i, (city, name) in enumerate(zip(cities, places["name"].to_pylist(), strict=True))
    ]
    _rename(made, "places", places, names)
    users = pq.read_table(made.data / "lake" / "users.parquet")
    _rename(made, "users", users, [SCRIPT, *users["name"].to_pylist()[1:]])
    made.run("materialize")
    _second_version(made)
    yield made
    made.run("down", check=False)


def _second_version(made: Installation) -> None:
    """Another version of the same data, which found half as much; since they were measured, only names changed."""
    root, live = made.data / "artifacts", made.report("publish")["version"]
    artifact = open_artifact(root, live)
    noise = torch.Generator().manual_seed(1)
    tensors = {
        key: value + 0.15 * torch.randn(value.shape, generator=noise) if value.is_floating_point() else value
        for key, value in artifact.tensors(MODEL).items()
    }
    about = {name: value for name, value in artifact.manifest.items() if name not in ("version", "files")}
    tables = {name: artifact.table(name) for name in ("users", "places")}
    tensors = {MODEL: tensors, SOURCES: artifact.tensors(SOURCES)}
    save_artifact(root, SECOND, about, tables=tables, tensors=tensors)
    with Lake(made.data) as lake:
        data = lake.fingerprint()
    measured = pq.read_table(root / live / FILE)
    said = json.loads(measured.schema.metadata[b"measured"]) | {"data": data}
    metadata = measured.schema.metadata | {b"measured": json.dumps(said).encode()}
    measured = measured.replace_schema_metadata(metadata)
    pq.write_table(measured, root / live / FILE)
    at = measured.column_names.index("ndcg")
    pq.write_table(measured.set_column(at, "ndcg", pc.divide(measured["ndcg"], 2.0)), root / SECOND / FILE)


def _rename(made: Installation, name: str, table: pa.Table, names: list[str]) -> None:
    at = table.column_names.index("name")
    renamed = table.set_column(at, table.schema.field("name"), pa.array(names, pa.string()))
    pq.write_table(renamed, made.data / "lake" / f"{name}.parquet", compression="zstd")


@pytest.fixture(scope="package")
def served(console_world: Installation) -> Iterator[Served]:
    places = pq.read_table(console_world.data / "lake" / "places.parquet").to_pylist()
    hostile = next(p["city_id"] for p in places if p["name"] in HOSTILE)
    with serving(console_world, **PATIENT) as base, httpx.Client(base_url=base, timeout=20) as api:
        yield Served(base, console_world, api, hostile, 0)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that CHROMIUM names; where there is none, the tests fail, and say what to do."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert found, "the tests of the console need Chromium: apt-get install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        # without a sandbox of its own, since tests run as root in containers; it sees this server alone
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and everything that went wrong on it."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def open(self, address: str = "", base: str | None = None) -> Page:
        """Go to a view and wait for its answers."""
        self.page.goto(f"{base or self.base}/console{address}")
        self.page.wait_for_load_state("networkidle")
        return self.page


Open = Callable[..., Watched]


@pytest.fixture
def look(browser: Browser, served: Served) -> Iterator[Open]:
    """Opens pages; at the end of the test none may have had an error on its console, or a request that failed."""
    made: list[Watched] = []
    contexts = []

    def watched(*, forgiving: bool = False, **options: Any) -> Watched:
        options = {"viewport": {"width": 1440, "height": 1000}} | options
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        one = Watched(page, served.base)
        page.on("request", lambda r: one.requests.append(r))
        page.on("response", lambda r: one.responses.append(r))
        page.on("pageerror", lambda error: one.wrong.append(f"error: {error}"))
        if not forgiving:
            page.on("console", lambda m: m.type in ("error", "warning") and one.wrong.append(f"console: {m.text}"))
            page.on("requestfailed", lambda r: one.wrong.append(f"failed: {r.url} {r.failure}"))
            page.on("response", lambda r: r.status >= 400 and one.wrong.append(f"{r.status}: {r.url}"))
        made.append(one)
        return one

    yield watched
    for context in contexts:
        context.close()
    assert [line for one in made for line in one.wrong] == []


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Writes a picture for the README, where PICTURES=1 asks for it: a test run leaves the tree as it was."""

    def take(page: Page, name: str) -> None:
        if os.environ.get("PICTURES"):
            folder = ROOT / "docs" / "img"
            folder.mkdir(exist_ok=True)
            page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=64)
            assert (folder / f"{name}.jpg").stat().st_size < 150_000

    return take


def panel(page: Page, name: str) -> Locator:
    """places, people or group."""
    return page.locator(f"section:has(> header #{name}-title)")


def shows(page: Page, names: list[str], of: str = "places") -> None:
    """These names, in this order, are on the screen or come within five seconds."""
    expect(panel(page, of).locator("ol.cards > li h3")).to_have_text(names)


def decimals(value: float, n: int = 3) -> str:
    """As the page rounds: halves up, by the decimal figure."""
    return str(Decimal(str(value)).quantize(Decimal(10) ** -n, ROUND_HALF_UP))


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()
