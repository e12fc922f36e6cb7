"""The picture of a world: what it shows is what it was given, whatever that holds."""

import re
from copy import deepcopy
from html.parser import HTMLParser
from itertools import pairwise
from math import cos, pi, radians
from typing import Any
from xml.etree import ElementTree

import pytest

from recsys.world.page import page

CONFIG = {
    "preset": "city", "users": 10_000, "places": 9_000, "seed": 42, "cities": 8,
    "start": "2024-01-01T00:00:00+00:00", "end": "2024-03-25T00:00:00+00:00",
}  # fmt: skip
FIGURES = {"interactions": 2_252_361, "social_edges": 184_000, "friend_labels": 304_000, "gini": 0.611}
BY_HOUR = [[0] * 24 for _ in range(7)]
BY_HOUR[4][20], BY_HOUR[6][3] = 2_000, 500
PICTURE: dict[str, Any] = {
    "table": [
        {"figure": "interactions", "value": 2_252_361, "low": 2_000_000, "high": 3_500_000, "unit": "", "ok": True},
        {"figure": "Gini", "value": 0.5804, "low": 0.60, "high": 0.75, "unit": "", "ok": False},
        {"figure": "gain", "value": 0.1094, "low": 0.08, "high": None, "unit": "%", "ok": True},
        {"figure": "repeats", "value": 0.25, "low": 0.125, "high": 0.55, "unit": "%", "ok": True},
        {"figure": "away", "value": 0.053, "low": None, "high": None, "unit": "%", "ok": True},
    ],
    "lorenz": {"places": [0, 0.01, 0.1, 0.5, 1], "interactions": [0, 0.125, 0.4, 0.875, 1]},
    "by_hour": BY_HOUR,
    "by_week": [150_000, 300_000, 75_000],
    "cities": [{"city": "Marenholm", "users": 2_800, "places": 1_600, "interactions": 700_123}],
    "degree": {"edges": [0, 1, 2, 5, 10], "users": [5, 10, 1_000, 40, 3]},
    "ratings": {"edges": [3.0, 3.25, 3.5, 3.75, 4.0], "interactions": [300, 100, 75, 25]},
    "map": {
        "city": "Marenholm",
        "places": [
            {"lat": 60.00, "lon": -31.00, "visits": 1_000, "category": 0},
            {"lat": 60.02, "lon": -30.98, "visits": 4_000, "category": 3},
            {"lat": 60.01, "lon": -30.99, "visits": 0, "category": 3},
        ],
        "neighborhoods": [{"name": "Linden Park", "lat": 60.01, "lon": -30.99}],
    },
    "people": ["Ada Fenwick lives in Linden Park.", "Otto Dalbeck lives in Glass Row."],
}  # fmt: skip
EMPTY: dict[str, Any] = {
    "table": [], "lorenz": {"places": [], "interactions": []}, "by_hour": [], "by_week": [], "cities": [],
    "degree": {"edges": [], "users": []}, "ratings": {"edges": [], "interactions": []},
    "map": {"city": "Marenholm", "places": [], "neighborhoods": []}, "people": [],
}  # fmt: skip


class Reader(HTMLParser):
    """Tags that are open, all tags with their attributes, and the text outside the style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.text.append(data.strip())


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def chart(html: str, said: str) -> ElementTree.Element:
    return next(svg for svg in svgs(html) if said in svg.attrib["aria-label"])


def texts(svg: ElementTree.Element) -> list[str]:
    return [e.text or "" for e in svg.iter("text")]


def marks(svg: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The rectangles of a chart by what they say."""
    return {rect.findtext("title", ""): rect for rect in svg.iter("rect")}


def rows(html: str, first: str) -> list[list[str]]:
    """Cells of the table whose first heading this is."""
    table = next(t for t in re.findall(r"<table>(.*?)</table>", html) if f"<th>{first}</th>" in t)
    lines = re.findall(r"<tr>(.*?)</tr>", table)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", line)] for line in lines[1:]]


@pytest.fixture(scope="module")
def html() -> str:
    return page(CONFIG, FIGURES, PICTURE)


@pytest.mark.parametrize("picture", [PICTURE, EMPTY], ids=["full", "empty"])
def test_every_tag_is_closed_and_every_chart_is_an_image_with_words(picture: dict[str, Any]):
    html = page(CONFIG, FIGURES, picture)
    assert html.startswith("<!doctype html>")
    assert Reader(html).open == []
    charts = svgs(html)
    assert len(charts) == (6 if picture is PICTURE else 0)
    assert all(svg.attrib["role"] == "img" and svg.attrib["aria-label"] for svg in charts)


def test_the_page_needs_nothing_from_elsewhere(html: str):
    reader = Reader(html)
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe"}
    assert not any({"src", "href"} & set(attributes) for _, attributes in reader.tags)
    assert "prefers-color-scheme:dark" in html


def test_the_same_world_gives_the_same_page_and_is_left_as_it_was(html: str):
    before = deepcopy(PICTURE)
    assert page(CONFIG, FIGURES, PICTURE) == html
    assert before == PICTURE


def test_the_head_says_which_world_and_how_large(html: str):
    header = html[html.index("<header>") : html.index("</header>")]
    assert "preset city, seed 42, cities 8, 2024-01-01 to 2024-03-25" in header
    pairs = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", header))
    assert pairs == {
        "users": "10,000", "places": "9,000", "interactions": "2,252,361", "social edges": "184,000",
        "friend labels": "304,000",
    }  # fmt: skip


def test_figures_stand_beside_their_ranges_and_the_verdict_is_in_words(html: str):
    assert rows(html, "figure") == [
        ["interactions", "2,252,361", "2,000,000 to 3,500,000", "in range"],
        ["Gini", "0.580", "0.6 to 0.75", "out of range"],
        ["gain", "10.9%", "at least 8%", "in range"],
        ["repeats", "25.0%", "12.5% to 55%", "in range"],
        ["away", "5.3%", "", ""],
    ]
    assert "<b>1 of 4</b> figures that have a range are out of it." in html


def test_a_world_that_keeps_to_its_ranges_or_has_none_says_so():
    kept = {**PICTURE, "table": [row for row in PICTURE["table"] if row["ok"]]}
    assert "All 3 figures that have a range are in it." in page(CONFIG, FIGURES, kept)
    free = page(CONFIG, FIGURES, {**PICTURE, "table": PICTURE["table"][-1:]})
    assert "No ranges are set" in free
    assert rows(free, "figure") == [["away", "5.3%"]]


def test_cities_and_people_are_all_there(html: str):
    assert rows(html, "city") == [["Marenholm", "2,800", "1,600", "700,123"]]
    assert re.findall(r"<li>(.*?)</li>", html)[-2:] == PICTURE["people"]


def test_popularity_is_drawn_and_told_by_the_most_visited_places(html: str):
    said = (
        "The most visited 1% of the places have 12.5%, 10% of the places have 40.0%, "
        "50% of the places have 87.5% of the interactions."
    )
    assert f'<p class="soft">{said}</p>' in html
    svg = chart(html, said)
    points = [tuple(map(float, point.split(","))) for point in svg.find("polyline").attrib["points"].split()]
    (left, bottom), (right, top) = points[0], points[-1]
    assert points[2] == pytest.approx((left + 0.1 * (right - left), bottom - 0.4 * (bottom - top)), abs=0.1)
    assert {"0%", "50%", "100%", "places, most visited first", "interactions"} <= set(texts(svg))


def test_two_places_have_no_tenth_to_tell_of():
    few = {**PICTURE, "lorenz": {"places": [0, 0, 0.5, 0.5, 1], "interactions": [0, 0, 0.75, 0.75, 1]}}
    assert "The most visited 50% of the places have 75.0% of the interactions." in page(CONFIG, FIGURES, few)


def test_weeks_are_bars_as_high_as_their_counts(html: str):
    svg = chart(html, "Interactions by week. Most: week 2, 300,000.")
    bars = marks(svg)
    assert list(bars) == ["week 1: 150,000", "week 2: 300,000", "week 3: 75,000"]
    one, two, three = (float(bar.attrib["height"]) for bar in bars.values())
    assert (one / two, three / two) == pytest.approx((0.5, 0.25), abs=1e-3)
    # 300,000 in at most five steps: by 100,000
    assert {"0", "100,000", "200,000", "300,000", "1", "2", "3", "week"} <= set(texts(svg))
    assert "400,000" not in texts(svg)


def test_many_weeks_get_few_ticks():
    svg = chart(page(CONFIG, FIGURES, {**PICTURE, "by_week": [7] * 52}), "Interactions by week.")
    assert [text for text in texts(svg) if text.isdigit()][-11:] == [str(week) for week in range(1, 53, 5)]
    assert len(marks(svg)) == 52


def test_ratings_before_the_threshold_are_paler(html: str):
    svg = chart(html, "Interactions by rating. Most: 3 to 3.25, 300.")
    kinds = {said: bar.attrib["class"] for said, bar in marks(svg).items()}
    assert kinds == {
        "3 to 3.25: 300": "low",
        "3.25 to 3.5: 100": "low",
        "3.5 to 3.75: 75": "bar",
        "3.75 to 4: 25": "bar",
    }
    line = next(line for line in svg.iter("line") if line.attrib["class"] == "mark")
    low, high = (float(marks(svg)[name].attrib["x"]) for name in ("3.25 to 3.5: 100", "3.5 to 3.75: 75"))
    assert low < float(line.attrib["x1"]) == float(line.attrib["x2"]) < high
    assert "from 3.5" in texts(svg)
    assert "Positive, rated 3.5 or more: 20.0% of the interactions." in html


def test_social_degrees_are_named_by_their_spans(html: str):
    svg = chart(html, "Users by their social edges. Most: 2–4 social edges, 1,000.")
    assert list(marks(svg)) == [
        "0 social edges: 5", "1 social edges: 10", "2–4 social edges: 1,000", "5–9 social edges: 40",
        "10+ social edges: 3",
    ]  # fmt: skip


def test_the_heat_map_has_a_cell_for_every_hour_of_the_week(html: str):
    svg = chart(html, "Most: Friday 20:00, 2,000.")
    cells = {said: cell for said, cell in marks(svg).items() if "day" in said}
    assert len(cells) == 7 * 24
    strength = {said: cell.attrib["fill-opacity"] for said, cell in cells.items()}
    assert strength["Friday 20:00: 2,000"] == "1.00"
    assert strength["Sunday 03:00: 500"] == "0.30"  # 0.07 + 0.93 / 4
    assert strength["Monday 00:00: 0"] == "0.07"
    assert {"Mon", "Sun", "00:00", "18:00", "2,000"} <= set(texts(svg))


def test_dots_have_the_area_of_their_visits_and_the_colour_of_their_category(html: str):
    svg = chart(html, "Map of Marenholm")
    large, middle, none = svg.iter("circle")  # drawn from the most visited on
    assert [dot.attrib["class"] for dot in (large, middle, none)] == ["c3", "c0", "c3"]
    areas = [pi * float(dot.attrib["r"]) ** 2 for dot in (large, middle)]
    assert areas[0] / areas[1] == pytest.approx(4)
    assert float(none.attrib["r"]) > 0  # nobody came, and it is there
    assert '<i class="c0"></i>entertainment 1</li>' in html
    assert '<i class="c3"></i>dining 2</li>' in html
    assert "Places shown: 3. The larger a dot, the more visits, up to 4,000." in html


def test_the_map_keeps_its_aspect_and_its_scale(html: str):
    svg = chart(html, "Map of Marenholm")
    north_east, south_west, _ = ((float(d.attrib["cx"]), float(d.attrib["cy"])) for d in svg.iter("circle"))
    wide, tall = north_east[0] - south_west[0], south_west[1] - north_east[1]
    assert wide > 0  # east is right
    assert tall > 0  # north is up
    assert wide / tall == pytest.approx(cos(radians(60.01)), abs=1e-3)
    scale = next(line for line in svg.iter("line") if line.attrib["class"] == "scale")
    length = float(scale.attrib["x2"]) - float(scale.attrib["x1"])
    # 0.02 degrees are 2.2264 km from south to north; a fifth of that or more: 1 km
    assert length / tall == pytest.approx(1 / 2.2264, abs=1e-3)
    assert texts(svg) == ["Linden Park", "1 km"]


def test_names_on_the_map_do_not_cover_each_other():
    crowded = deepcopy(PICTURE)
    crowded["map"]["neighborhoods"] = [{"name": f"Linden Park {n}", "lat": 60.01, "lon": -30.99} for n in range(4)]
    svg = chart(page(CONFIG, FIGURES, crowded), "Map of Marenholm")
    heights = sorted(float(text.attrib["y"]) for text in svg.iter("text") if "Linden" in (text.text or ""))
    assert len(heights) == 4
    assert all(b - a >= 17 for a, b in pairwise(heights))


def test_markup_in_the_data_is_shown_and_not_obeyed():
    bad = '<script>alert("1")</script>&\''
    picture = deepcopy(PICTURE)
    picture["table"][0]["figure"] = picture["cities"][0]["city"] = picture["map"]["city"] = bad
    picture["map"]["neighborhoods"][0]["name"] = picture["people"][0] = bad
    html = page({**CONFIG, "preset": bad}, FIGURES, picture)
    reader = Reader(html)
    assert reader.open == []
    assert "script" not in {tag for tag, _ in reader.tags}
    assert sum(bad in text for text in reader.text) == 6
    assert bad in chart(html, "Map of").attrib["aria-label"]


def test_empty_lists_leave_a_page_that_says_so():
    reader = Reader(page(CONFIG, FIGURES, EMPTY))
    headings = {"Marenholm", "Popularity", "When people go out", "Week by week", "Ratings", "Social edges", "Cities"}
    assert headings <= set(reader.text)
    assert reader.text.count("Nothing to draw.") == 7


def test_a_world_of_one_user_and_one_place_is_drawn():
    tiny = deepcopy(PICTURE)
    tiny["lorenz"] = {"places": [0, 1], "interactions": [0, 0]}
    tiny["by_hour"], tiny["by_week"] = [[0] * 24 for _ in range(7)], [0]
    tiny["degree"]["users"], tiny["ratings"]["interactions"] = [1, 0, 0, 0, 0], [0, 0, 0, 0]
    tiny["map"]["places"] = [{"lat": 46.2, "lon": -31.4, "visits": 0, "category": 5}]
    tiny["map"]["neighborhoods"] = []
    html = page({**CONFIG, "users": 1, "places": 1}, {"interactions": 0}, tiny)
    assert Reader(html).open == []
    assert len(svgs(html)) == 6
    assert not re.search(r"\b(nan|inf)\b", html)
    assert "social edges</dt>" not in html  # a figure that the run does not have
