"""Explore, as a product manager uses it: what is on the screen is what the API says."""

import json
import re
import shlex

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Served, decimals, panel, rows, shows

USER = 5


def list_of(served: Served, **fields: object) -> list[str]:
    answer = served.api.post("/recommend/places", json={"top_k": 10} | fields)
    assert answer.status_code == 200, answer.text
    return [place["name"] for place in answer.json()["recommendations"]]


def heading(page: Page):
    return page.locator(".person-name")


def test_a_person_is_found_by_name_with_the_keyboard_alone(look: Open, served: Served):
    page = look().open()
    user = next(u for u in rows(served.made.data / "lake" / "users.parquet") if u["user_id"] == USER)
    field = page.get_by_role("combobox", name="Person")
    field.focus()
    page.keyboard.type(user["name"][:-1].lower())
    options = page.get_by_role("listbox", name="People found").get_by_role("option")
    expect(options).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(heading(page)).to_have_text(user["name"])
    expect(page).to_have_url(f"{served.base}/console#/explore?user={USER}")
    shows(page, list_of(served, user_id=USER))
    told = page.locator(".side").inner_text()
    for tag in served.api.get(f"/console/users/{USER}").json()["tags"]:
        assert tag["name"].replace("_", " ") in told
    field.fill("zzzz")
    expect(page.get_by_text("Nobody has this name or number.")).to_be_visible()
    field.fill("7")
    expect(options.first).to_contain_text("7")


def test_surprise_me_shows_somebody_of_the_world(look: Open, served: Served):
    page = look().open(f"#/explore?user={USER}")
    before = heading(page).inner_text()
    names = {u["name"] for u in rows(served.made.data / "lake" / "users.parquet")}
    page.get_by_role("button", name="Surprise me").click()
    page.wait_for_url(lambda url: not url.endswith(f"user={USER}"))
    expect(heading(page)).not_to_have_text(before)
    assert heading(page).inner_text() in names


def test_city_day_time_and_filters_are_what_is_asked_for(look: Open, served: Served):
    page = look().open(f"#/explore?user={USER}")
    page.get_by_label("City").select_option("2")
    expect(page.get_by_role("heading", name="Places to go in Tessaline")).to_be_visible()
    page.get_by_role("radio", name="Weekend").check()
    page.get_by_role("radio", name="Night").check()
    shows(page, list_of(served, user_id=USER, city_id=2, time_slot=5))
    page.get_by_role("radio", name="$$", exact=True).check()
    page.get_by_role("group", name="Only").get_by_role("button", name="dining").click()
    filters = {"price": {"max": 1}, "categories": [3]}
    asked = {"user_id": USER, "city_id": 2, "time_slot": 5, "filters": filters}
    shows(page, list_of(served, **asked))
    for card in panel(page, "places").locator("ol.cards > li").all():
        expect(card).to_contain_text("dining")
        expect(card.get_by_role("img")).to_have_attribute("aria-label", re.compile("price band [01] of 0 to 4"))
    page.get_by_role("slider", name="Diversity").fill("0.8")
    page.get_by_label("Only where they never were").check()
    shows(page, list_of(served, **asked, diversity=0.8, exclude_visited=True))
    again = look().open(page.url.partition("/console")[2])
    shows(again, list_of(served, **asked, diversity=0.8, exclude_visited=True))  # the address says it all


def test_a_card_says_what_the_place_is_and_what_moved_its_score(look: Open, served: Served, picture):
    page = look().open(f"#/explore?user={USER}")
    answer = served.api.post("/recommend/places", json={"user_id": USER, "explain": "parts"}).json()
    best = answer["recommendations"][0]
    place = next(p for p in rows(served.made.data / "lake" / "places.parquet") if p["place_id"] == best["place_id"])
    card = page.locator(f"#place-{best['place_id']}")
    for said in (best["name"], best["neighborhood_name"], f"{best['score']:.3f}", *best["explanations"]):
        expect(card).to_contain_text(said)
    expect(card.get_by_role("img")).to_have_attribute("aria-label", f"price band {place['price_band']} of 0 to 4")
    picture(page, "explore")
    card.get_by_text("Why").click()
    expect(card).to_contain_text("in the list, rank 1 of")
    expect(card.locator(".parts tr")).to_have_count(len(best["score_parts"]))
    expect(card).to_contain_text("own history")
    dot = page.locator("svg .dot").first
    expect(dot).to_have_text("1")
    card.hover()
    expect(dot).to_have_class("dot active")


@pytest.mark.parametrize(("kind", "said"), [("like", "Like"), ("attend", "I went")])
def test_an_event_is_taken_and_the_list_answers(look: Open, served: Served, kind: str, said: str):
    user = {"like": 9, "attend": 11}[kind]
    page = look().open(f"#/explore?user={user}")
    before = served.api.post("/recommend/places", json={"user_id": user}).json()["recommendations"]
    picked = before[7]
    page.locator(f"#place-{picked['place_id']}").get_by_role("button", name=said).click()
    expect(page.get_by_role("status").filter(has_text="The list answers")).to_be_visible()
    log = served.made.data / "events"
    assert any(f'"place_id":{picked["place_id"]}' in line.replace(" ", "") and kind in line
               for file in log.rglob("*") if file.is_file() for line in file.read_text().splitlines())  # fmt: skip
    after = served.api.post("/recommend/places", json={"user_id": user}).json()["recommendations"]
    assert [p["score"] for p in after] != [p["score"] for p in before]
    shows(page, [p["name"] for p in after])
    at = {p["place_id"]: i for i, p in enumerate(before)}
    now = next((i for i, p in enumerate(after, 1) if p["place_id"] == picked["place_id"]), None)
    if now is not None:
        score = after[now - 1]["score"]
        said = f"Rank 8 → {now}, score {decimals(picked['score'], 4)} → {decimals(score, 4)}."
        expect(page.locator(f"#place-{picked['place_id']}")).to_contain_text(said)
    moved = sum(at.get(p["place_id"]) != i for i, p in enumerate(after))
    expect(panel(page, "places").locator(".moved")).to_have_count(moved)
    page.locator("details.history").get_by_text("Latest places").click()
    expect(page.locator("details.history li").first).to_contain_text(picked["name"])


def test_who_would_come_and_where_all_of_them_would_go(look: Open, served: Served):
    page = look().open(f"#/explore?user={USER}")
    place = served.api.post("/recommend/places", json={"user_id": USER}).json()["recommendations"][1]
    page.locator(f"#place-{place['place_id']}").get_by_role("button", name="Who would come?").click()
    body = {"user_id": USER, "target_place_id": place["place_id"], "top_k": 6}
    expected = served.api.post("/recommend/people", json=body).json()["recommendations"]
    shows(page, [p["name"] for p in expected], "people")
    people = panel(page, "people")
    for card, person in zip(people.locator("ol.cards > li").all(), expected, strict=True):
        for said in (f"{person['compat_score']:.2f}", f"{person['attend_prob']:.2f}", *person["explanations"]):
            expect(card).to_contain_text(said)
    people.get_by_role("button", name="Add to group").first.click()
    people.get_by_role("button", name="Add to group").first.click()
    group = panel(page, "group")
    group.get_by_role("radio", name="on average").check()
    members = [USER, *(p["user_id"] for p in expected[:2])]
    answer = served.api.post(
        "/recommend/groups", json={"user_ids": members, "strategy": "average", "city_id": 3, "top_k": 5}
    ).json()
    shows(page, [p["name"] for p in answer["recommendations"]], "group")
    first = group.locator("ol.cards > li").first.inner_text()
    for member in answer["recommendations"][0]["members"]:
        assert f"{member['score']:.2f}" in first


def test_somebody_made_up_is_answered_by_what_they_like(look: Open, served: Served):
    page = look().open()
    page.get_by_role("button", name="Make one up").click()
    expect(heading(page)).to_have_text("Somebody new")
    page.get_by_label("City").select_option("1")
    likes = page.get_by_role("group", name="They like")
    likes.get_by_role("button", name="culture").click()
    page.get_by_role("group", name="In particular").get_by_role("button", name="museum").click()
    taxonomy = served.api.get("/taxonomy").json()
    profile = {"categories": [5], "tags": [taxonomy["tags"].index("museum")]}
    shows(page, list_of(served, profile=profile, city_id=1))
    assert page.get_by_role("button", name="Like").count() == 0, "nobody to say it of"
    assert page.get_by_role("alert").count() == 0


def test_the_request_is_shown_and_makes_the_list_again(look: Open, served: Served):
    page = look().open(f"#/explore?user={USER}&city=2&day=0&time=2")
    places = panel(page, "places")
    places.get_by_text("POST /recommend/places").click()
    shown = places.locator("pre").first.inner_text()
    places.get_by_role("button", name="Copy").click()
    expect(places.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == shown
    words = shlex.split(shown.replace("\\\n", " "))
    assert words[:2] == ["curl", "-s"]
    answer = httpx.post(words[2], headers=[tuple(words[4].split(": "))], json=json.loads(words[6]), timeout=10).json()
    shows(page, [p["name"] for p in answer["recommendations"]])


def test_what_is_refused_is_said_in_the_apis_own_words(look: Open, served: Served):
    one = look(forgiving=True)
    page = one.open("#/explore?user=5&city=77")
    expect(page.get_by_role("alert").first).to_contain_text("there is no city 77")
    page = one.open("#/explore?user=99999")
    expect(page.locator(".side").get_by_role("alert")).to_contain_text("there is no user 99999")
