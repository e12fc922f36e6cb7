"""Compare: two lists of one person, what moved between them, and what the difference is worth."""

from playwright.sync_api import expect

from tests.browser.conftest import Open, Served, decimals, panel

USER = 42
LENGTH = 15


def names(answer: dict) -> list[str]:
    return [place["name"] for place in answer["recommendations"]]


def test_popularity_stands_beside_the_model_and_what_moved_is_marked(look: Open, served: Served, picture):
    page = look().open(f"#/compare?user={USER}")
    home = served.api.get(f"/console/users/{USER}").json()["city_id"]
    body = {"user_id": USER, "city_id": home, "explain": "none", "top_k": LENGTH}
    model = served.api.post("/recommend/places", json=body).json()["recommendations"]
    popular = served.api.post("/console/popular", json={"city_id": home, "top_k": LENGTH}).json()["recommendations"]
    assert [p["visitors"] for p in popular] == sorted((p["visitors"] for p in popular), reverse=True)
    for side, mine, other in (("a", model, popular), ("b", popular, model)):
        lines = panel(page, side).locator("ol.lines > li")
        expect(lines.locator("h3")).to_have_text([p["name"] for p in mine])
        there = {p["place_id"]: at for at, p in enumerate(other)}
        for at, (line, place) in enumerate(zip(lines.all(), mine, strict=True)):
            was = there.get(place["place_id"])
            if was is None:
                expect(line).to_contain_text("only here")
            elif was != at:
                expect(line.locator(".moved")).to_contain_text(f"{'up' if at < was else 'down'} from {was + 1}")
            else:
                expect(line.locator(".moved")).to_have_count(0)
    both = {p["place_id"] for p in model} & {p["place_id"] for p in popular}
    expect(page.get_by_role("status").filter(has_text="in both")).to_contain_text(
        f"{len(both)} of {len(model)} in both"
    )
    tested = served.made.report("evaluate")["places"]
    gain = panel(page, "gain")
    expect(gain).to_contain_text(f"{tested['model']['ndcg'] / tested['popularity']['ndcg']:.1f} times popularity's")
    for method, row in tested.items():
        expect(gain).to_contain_text(f"{method.replace('_', ' ')}{decimals(row['ndcg'])}")
    picture(page, "compare")


def test_two_settings_of_one_model(look: Open, served: Served):
    page = look().open(f"#/compare?user={USER}&b.by=model")
    side = panel(page, "b")
    side.get_by_text("Settings of B").click()
    side.get_by_role("radio", name="Weekend").check()
    side.get_by_role("radio", name="Night").check()
    side.get_by_role("slider", name="Diversity").fill("0.7")
    side.get_by_role("button", name="clubs").click()
    home = served.api.get(f"/console/users/{USER}").json()["city_id"]
    body = {"user_id": USER, "city_id": home, "explain": "none", "top_k": LENGTH}
    other = body | {"time_slot": 5, "diversity": 0.7, "filters": {"categories": [2]}}
    for name, asked in (("a", body), ("b", other)):
        expected = names(served.api.post("/recommend/places", json=asked).json())
        expect(panel(page, name).locator("ol.lines h3")).to_have_text(expected)
    side.get_by_text("POST /recommend/places").click()
    expect(side.locator("pre").first).to_contain_text('"diversity":0.7')


def test_the_oracle_stands_beside_the_model(look: Open, served: Served):
    page = look().open(f"#/compare?user={USER}")
    page.get_by_label("List B by").select_option("oracle")
    expected = names(served.api.get(f"/console/oracle?user_id={USER}").json())[:LENGTH]
    assert len(expected) == LENGTH
    expect(panel(page, "b").locator("ol.lines h3")).to_have_text(expected)
    home = served.api.get(f"/console/users/{USER}").json()["city_id"]
    page.get_by_label("City").select_option(str((home + 1) % 8))
    expect(panel(page, "b")).to_contain_text("The oracle's lists are of people's own city.")


def test_a_person_is_changed_for_both(look: Open, served: Served):
    page = look().open(f"#/compare?user={USER}")
    page.get_by_role("combobox", name="Person").fill("7")
    page.get_by_role("option").filter(has_text="7").first.click()
    expect(page).to_have_url(f"{served.base}/console#/compare?user=7")
    home = served.api.get("/console/users/7").json()["city_id"]
    body = {"user_id": 7, "city_id": home, "explain": "none", "top_k": LENGTH}
    expect(panel(page, "a").locator("ol.lines h3")).to_have_text(
        names(served.api.post("/recommend/places", json=body).json())
    )
