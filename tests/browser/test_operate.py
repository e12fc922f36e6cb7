"""Operate and Data: what serves, how it does, publish and roll back with a key, and the lake's ready questions."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from api.console.queries import QUESTIONS
from api.keys import make
from recsys.lake import Lake
from tests.browser.conftest import PATIENT, SECOND, Open, Served, decimals, panel
from tests.conftest import ROOT, free_port
from tests.installed import Installation, serving

LONG_MS = 120_000  # a command of its own process, on a machine that is busy
SECRET, KEY = make("operator", operator=True)
READER_SECRET, READER = make("reader")


def test_versions_freshness_and_quality_are_what_the_jobs_found(look: Open, served: Served, picture):
    assert served.api.post("/recommend/places", json={"user_id": 3}).status_code == 200
    page = look().open("#/operate")
    latency = panel(page, "latency")
    for said in ("/recommend/places all of it, 200", "/recommend/places retrieve", "GET /console/operations"):
        expect(latency.get_by_role("row").filter(has_text=said)).to_have_count(1)
    live = served.made.report("publish")["version"]
    tested = served.made.report("evaluate")
    row = panel(page, "versions").locator("tbody tr").filter(has_text=live).first
    expect(row).to_contain_text(decimals(tested["places"]["model"]["ndcg"]))
    expect(row).to_contain_text("live")
    expect(panel(page, "versions").locator(".versions tbody tr")).to_have_count(2)
    table = panel(page, "versions").locator(".details table")
    for method, said in tested["places"].items():
        line = table.get_by_role("row", name=re.compile(method.replace("_", " ")))
        expect(line).to_contain_text(decimals(said["recall"]))
    chart = panel(page, "versions").get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile("NDCG@10 on the validation"))
    rows = served.made.report("materialize")["rows"]
    for view, n in rows.items():
        fresh = panel(page, "fresh").get_by_role("row", name=re.compile(f"^{view.replace('_', ' ')} "))
        expect(fresh.first).to_contain_text(f"{n:,} rows")
    judged = json.loads((served.made.data / "reports" / "quality" / "tables.json").read_text())["suites"]
    for name, suite in judged.items():
        quality = panel(page, "quality").get_by_role("row", name=re.compile(f"^{name.replace('_', ' ')} "))
        expect(quality.first).to_contain_text(f"{suite['accepted']:,}")
    expect(panel(page, "degraded")).to_contain_text("online store")
    expect(page.locator(".tiles")).to_contain_text(live)
    expect(panel(page, "versions").get_by_role("button", name="Publish")).to_be_disabled()
    expect(panel(page, "versions")).to_contain_text("need an operator's key")
    picture(page, "operate")


def test_the_full_report_is_a_page_in_which_nothing_runs(look: Open, served: Served):
    page = look().open("#/operate")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="The full report").click()
    report = opened.value
    report.wait_for_load_state()
    assert report.url == f"{served.base}/console/reports/quality/index.html"
    assert "interactions" in report.inner_text("body")
    answer = served.api.get("/console/reports/quality/index.html")
    assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("..%2Fevaluate.json", "quality/../evaluate.json", "evaluate.json", "%2e%2e/landing/source.json"):
        assert served.api.get(f"/console/reports/{path}").status_code in (404, 422), path


@pytest.fixture(scope="module")
def guarded(console_world: Installation) -> Iterator[str]:
    """The same world, served to whom has a key."""
    env = PATIENT | {"RECSYS_API_KEYS": f"{KEY.entry},{READER.entry}", "RECSYS_PORT": str(free_port())}
    with serving(console_world, **env) as base:
        yield base


def use(page: Page, secret: str) -> None:
    if not page.get_by_label("API key").is_visible():
        page.get_by_role("button", name=re.compile("API key|Key set")).click()
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Use").click()


def test_publish_and_roll_back_with_a_key(look: Open, served: Served, guarded: str):
    live = served.made.report("publish")["version"]
    page = look(forgiving=True).open("#/operate", base=guarded)
    expect(page.get_by_role("alert").first).to_contain_text("this needs an API key")
    use(page, "recsys_wrong")
    expect(page.get_by_role("alert").first).to_contain_text("there is no such API key")
    use(page, READER_SECRET)
    versions = panel(page, "versions")
    row = versions.locator(".versions tr").filter(has_text=SECOND)
    row.get_by_role("button", name="Publish").click()
    row.get_by_role("button", name="Yes, publish").click()
    expect(versions.get_by_role("alert")).to_contain_text("this needs an API key with the role operator")
    use(page, SECRET)
    row.get_by_role("button", name="Publish").click()
    row.get_by_role("button", name="Yes, publish").click()
    expect(versions.get_by_role("alert")).to_contain_text(f"version {SECOND} is worse than {live}", timeout=LONG_MS)
    expect(versions.get_by_role("alert")).to_contain_text("not published")
    versions.get_by_role("button", name="Publish it all the same").click()
    versions.get_by_role("button", name="Yes, publish it all the same").click()
    expect(versions.get_by_role("status")).to_contain_text(f"{SECOND} is live", timeout=LONG_MS)
    expect(row).to_contain_text("live", timeout=LONG_MS)
    expect(versions.locator(".versions tr").filter(has_text=live)).to_contain_text("loaded")
    expect(page.locator(".version")).to_have_text(SECOND)

    page.goto(f"{guarded}/console#/compare?user=7")
    page.get_by_label("List B by").select_option(live)
    home = served.api.get("/console/users/7").json()["city_id"]
    body = {"user_id": 7, "city_id": home, "explain": "none", "top_k": 15}
    for side, version in (("a", SECOND), ("b", live)):
        answer = served.api.post(f"/console/versions/{version}/places", json=body).json()
        assert answer["model_version"] == version
        names = [place["name"] for place in answer["recommendations"]]
        expect(panel(page, side).locator("ol.lines h3")).to_have_text(names)

    page.goto(f"{guarded}/console#/operate")
    versions.get_by_role("button", name="Roll back").click()
    versions.get_by_role("button", name="Yes, roll back").click()
    expect(versions.get_by_role("status")).to_contain_text(f"{live} is live", timeout=LONG_MS)
    expect(page.locator(".version")).to_have_text(live, timeout=LONG_MS)


def test_quantiles_of_what_metrics_say(look: Open):
    page = look().open("#/data")
    text = "\n".join(
        [
            "# TYPE recsys_stage_seconds histogram",
            'recsys_stage_seconds_bucket{stage="rank",le="0.01"} 50',
            'recsys_stage_seconds_bucket{stage="rank",le="0.02"} 90',
            'recsys_stage_seconds_bucket{stage="rank",le="+Inf"} 100',
            'recsys_stage_seconds_sum{stage="rank"} 1.5',
            "recsys_other_total 7",
        ]
    )
    script = "text => import('/console/static/js/metrics.js').then((m) => m.histograms(text))"
    (found,) = page.evaluate(script, text)
    assert (found["name"], found["labels"], found["count"]) == ("recsys_stage_seconds", {"stage": "rank"}, 100)
    assert found["p50"] == pytest.approx(0.01)
    assert found["p95"] == found["p99"] == 0.02, "the last bound that is known"


def test_the_questions_are_those_of_the_documentation():
    page = (ROOT / "docs" / "queries.md").read_text()
    said = re.findall(r"\*\*(.+?)\*\*.*?```sql\n(.*?)```", page, flags=re.DOTALL)
    assert [(q.title, q.sql) for q in QUESTIONS.values()] == [(title, sql.strip()) for title, sql in said]


def test_a_ready_question_is_answered_as_the_lake_answers_it(look: Open, served: Served, picture):
    page = look().open("#/data?q=weeks")
    question = QUESTIONS["weeks"]
    answer = panel(page, "answer")
    expect(answer.locator("tbody tr").first).to_be_visible(timeout=LONG_MS)
    with Lake(served.made.data) as lake:
        rows = lake.query(question.sql).to_pylist()
    assert answer.locator("thead th").all_inner_texts() == list(rows[0])
    shown = [line.split("\t") for line in answer.locator("tbody tr").all_inner_texts()]
    assert [cells[0] for cells in shown] == [str(row["week"]) for row in rows]
    assert [cells[1] for cells in shown] == [f"{row['interactions']:,}" for row in rows]
    expect(answer.get_by_role("img")).to_have_attribute("aria-label", re.compile("interactions by week"))
    picture(page, "data")
    answer.get_by_role("button", name="Copy SQL").click()
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == question.sql
    page.get_by_role("link", name="What was rejected, and why?").click()
    expect(answer).to_contain_text("the last `recsys validate` rejected no row", timeout=LONG_MS)
    assert served.api.get("/console/queries/drop").status_code == 404
