"""What makes the page one to rely on: budget, accessibility, hostile data, and what it says when a part is away."""

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import BACKWARDS, LONG, SCRIPT, Open, Served, panel

VIEWS = ("explore", "compare", "operate", "data")
MOST_BYTES = 300_000
MOST_REQUESTS = 30
LIGHT, DARK = "rgb(247, 245, 241)", "rgb(20, 19, 18)"
FIRST_VIEW_MS = 2_000  # a second on the default world, where a browser has the machine's two cores to itself


def test_the_first_view_is_small_and_quick(look: Open):
    look().open()  # the server has answered once, as for every visitor but the first
    one = look()
    page = one.open()
    expect(panel(page, "places").locator("ol.cards > li").first).to_be_visible()
    sizes = {r.url: len(r.body()) for r in one.responses}
    assert len(sizes) <= MOST_REQUESTS
    assert max(sizes.values()) <= MOST_BYTES, sizes
    assert sum(sizes.values()) <= MOST_BYTES, sizes
    assert all(r.url.startswith(one.base) for r in one.requests), "this server's alone"
    done = page.evaluate("Math.max(...performance.getEntriesByType('resource').map((r) => r.responseEnd))")
    assert done < FIRST_VIEW_MS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(look: Open, view: str, scheme: str):
    page = look(color_scheme=scheme, reduced_motion="reduce").open(f"#/{view}")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    found = Axe().run(page).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert grave == [], [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in grave]


@pytest.mark.parametrize("view", VIEWS)
def test_on_a_phone_nothing_is_wider_than_the_screen(look: Open, view: str):
    page = look(viewport={"width": 375, "height": 812}, has_touch=True, is_mobile=True).open(f"#/{view}")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_the_keyboard_reaches_and_shows_everything(look: Open):
    page = look().open()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            "[document.activeElement.textContent.trim() || document.activeElement.id,"
            " document.activeElement.matches(':focus-visible')]"
        )
        reached.add(name.split("\n")[0])
        assert outlined
    for wanted in ("Skip to the content", "Explore", "find", "Surprise me", "Make one up"):
        assert wanted in reached
    assert any(name.startswith("Like") for name in reached)
    page.reload()
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_colors_follow_the_system_and_a_choice_is_kept(look: Open):
    page = look(color_scheme="dark").open()
    body = page.locator("body")
    expect(body).to_have_css("background-color", DARK)
    page.get_by_role("button", name="Colors").click()
    expect(body).to_have_css("background-color", LIGHT)
    page.reload()
    expect(body).to_have_css("background-color", LIGHT)


def test_hostile_names_are_text(look: Open, served: Served):
    page = look().open(f"#/explore?user={served.hostile_user}&city={served.hostile_city}")
    cards = panel(page, "places").locator("ol.cards > li h3 bdi")
    expect(cards.first).to_be_visible()
    shown = cards.all_inner_texts()
    assert any(SCRIPT[:70] in name for name in shown)
    assert BACKWARDS in shown
    assert f"{LONG[:80]}…" in shown
    expect(page.locator(".person-name")).to_contain_text("<script>document.title")
    assert page.title() == "recsys console"
    assert page.locator("img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    score = panel(page, "places").locator("ol.cards > li .score").nth(shown.index(BACKWARDS))
    assert re.match(r"^0\.\d{3}", score.inner_text()), "what follows such a name is as it was"
    button = page.get_by_role("button", name=re.compile("^Like")).first
    button.click()
    expect(page.get_by_role("status").filter(has_text="The list answers")).to_be_visible()
    page = look().open(f"#/compare?user={served.hostile_user}&city={served.hostile_city}")
    expect(panel(page, "a").locator("ol.lines h3").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_the_online_store_the_banner_says_so_and_the_list_is_there(look: Open, served: Served, picture):
    one = look()
    page = one.open("#/explore?user=5")
    expect(page.get_by_role("alert")).to_have_count(0)
    served.made.run("down")
    try:
        page.reload()
        banner = page.locator(".banner")
        expect(banner).to_contain_text("The online store does not answer")
        expect(banner).to_contain_text("online_")
        expect(panel(page, "places").locator("ol.cards > li")).to_have_count(10)
        like = panel(page, "places").get_by_role("button", name="Like").nth(3)
        like.click()
        expect(page.get_by_role("status").filter(has_text="It is in the log")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        picture(page, "degraded")
    finally:
        served.made.run("up")
    expect(page.locator(".banner")).to_be_visible()
    page.wait_for_function("fetch('/ready').then((r) => r.json()).then((r) => r.status === 'ready')", timeout=20_000)
    deadline = time.monotonic() + 20  # a server that has just begun may miss the next request's deadline
    while True:
        page.wait_for_load_state("networkidle")  # a reload would cut off what the page still asks
        page.reload()
        expect(panel(page, "places").locator("ol.cards > li").first).to_be_visible()
        page.wait_for_load_state("networkidle")  # a banner comes after the list
        if not page.locator(".banner").count():
            break
        assert time.monotonic() < deadline, "answers are whole again, and the banner stays"


def test_without_the_api_the_page_says_so_and_tries_again(look: Open):
    page = look(forgiving=True).open("#/explore?user=5")
    expect(panel(page, "places").locator("ol.cards > li").first).to_be_visible()
    page.context.set_offline(True)
    page.get_by_label("City").select_option("2")
    expect(panel(page, "places").get_by_role("alert")).to_contain_text("The API does not answer.")
    page.context.set_offline(False)
    panel(page, "places").get_by_role("button", name="Try again").click()
    expect(panel(page, "places").locator("ol.cards > li").first).to_be_visible()
