"""The training report: what it says is what was measured, whatever names the data hold."""

import re
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from recsys.graph import Snapshot
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.training.calibration import ReliabilityBin
from recsys.training.evaluation import Evaluation, embed, evaluate
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.page import page
from recsys.training.picture import group_rows, principal_plane, vector_maps, worst_users
from tests.planted import Planted
from tests.unit.test_world_page import Reader, chart, rows, svgs, texts

CITIES = {0: "Marenholm", 1: "Veldt"}
CATEGORIES = ("entertainment", "outdoors", "shopping", "dining", "culture", "sports")
ABOUT: dict[str, Any] = {
    "version": "20240325-abc", "measured_on": "the test weeks, 2024-03-11 to 2024-03-25", "users": 1_234,
    "reads": "cosine", "best_epoch": 3,
}  # fmt: skip
ROW: dict[str, Any] = {
    "group": "Marenholm",
    "users": 1_234,
    "means": {"model": (0.3, 0.25, 0.35), "popularity": (0.2, 0.15, 0.25), "oracle": (0.5, 0.45, 0.55)},
    "minus": {"popularity": (0.1, 0.05, 0.15), "oracle": (-0.2, -0.25, -0.15)},
}
PICTURE: dict[str, Any] = {
    "history": [
        {"stage": "vectors", "epoch": 0, "losses": {"retrieval": 4.0, "friend": 0.5}, "ndcg": 0.1},
        {"stage": "vectors", "epoch": 1, "losses": {"retrieval": 3.0, "friend": 0.6}, "ndcg": 0.2},
        {"stage": "ranking", "reads": "sources", "epoch": 0, "epochs": 2, "loss": 2.0, "ndcg": 0.2, "ndcg_new": 0.1},
        {"stage": "ranking", "reads": "sources", "epoch": 1, "epochs": 2, "loss": 1.0, "ndcg": 0.4, "ndcg_new": 0.3},
    ],
    "groups": {"all": [ROW], "city": [ROW], "activity": [{**ROW, "group": "0 to 12"}]},
    "ece": {"friend": 0.0125, "attend": None},
    "reliability": {"friend": [ReliabilityBin(0.0, 0.1, 100, 0.05, 0.1), ReliabilityBin(0.9, 1.0, 300, 0.95, 0.9)]},
    "worst": [
        {
            "user_id": 7, "city": "Veldt", "visited": 3, "ndcg": 0.123, "wanted": ["Glass Row", "Old Mill"],
            "got": ["Bar 1", "Old Mill"], "hits": [False, True],
        }
    ],
    "maps": [
        {
            "title": "Places by city", "x": [1.0, -1.0, 0.5], "y": [0.0, 0.5, -0.5], "group": [1, 1, 0],
            "groups": ["Marenholm", "Veldt"], "explained": 0.25,
        }
    ],
}  # fmt: skip
EMPTY: dict[str, Any] = {
    "history": [], "groups": {"all": [], "city": [], "activity": []}, "ece": {"friend": None, "attend": None},
    "reliability": {}, "worst": [], "maps": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return page(ABOUT, PICTURE)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Planted(n_users=60, n_places=90, n_cities=2, weeks=4, visits=6).snapshot(3)


@pytest.fixture(scope="module")
def prepared(snapshot: Snapshot) -> Prepared:
    return prepare(snapshot, size_config([snapshot], ModelConfig()))


@pytest.fixture(scope="module")
def model(prepared: Prepared, snapshot: Snapshot) -> RecModel:
    torch.manual_seed(0)
    return RecModel(size_config([snapshot], ModelConfig())).eval()


@pytest.fixture(scope="module")
def result(model: RecModel, prepared: Prepared) -> Evaluation:
    return evaluate(model, prepared, k=5, candidates=20)


# ----------------------------------------------------------------------------------------------------------- the page
@pytest.mark.parametrize("picture", [PICTURE, EMPTY], ids=["full", "empty"])
def test_every_tag_is_closed_and_nothing_comes_from_elsewhere(picture: dict[str, Any]) -> None:
    html = page(ABOUT, picture)
    reader = Reader(html)
    assert reader.open == []
    assert "http" not in html
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe"}
    assert not any({"src", "href"} & set(attributes) for _, attributes in reader.tags)
    assert "prefers-color-scheme:dark" in html
    assert all(svg.attrib["role"] == "img" and svg.attrib["aria-label"] for svg in svgs(html))
    assert len(svgs(html)) == (5 if picture is PICTURE else 0)


def test_the_head_says_which_version_and_on_what(html: str) -> None:
    header = html[html.index("<header>") : html.index("</header>")]
    assert "Version 20240325-abc, measured on the test weeks, 2024-03-11 to 2024-03-25, 1,234 users." in header
    assert page(ABOUT, PICTURE) == html


def test_losses_are_drawn_over_their_first_and_told_as_they_are(html: str) -> None:
    svg = chart(html, "Losses by epoch")
    assert "retrieval 4.000 → 3.000; friend 0.500 → 0.600" in svg.attrib["aria-label"]
    retrieval, friend = (
        [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()] for line in svg.iter("polyline")
    )
    assert retrieval[0] == friend[0], "both begin at one"
    assert friend[1][1] < friend[0][1] < retrieval[1][1], "one rose and one fell"
    bottom = 196.0
    assert (bottom - retrieval[1][1]) / (bottom - retrieval[0][1]) == pytest.approx(0.75, abs=2e-3)
    assert {"1", "2", "epoch"} <= set(texts(svg))


def test_validation_by_epoch_of_both_stages(html: str) -> None:
    assert "by the vectors alone, at last 0.2000" in chart(html, "of the vectors by epoch").attrib["aria-label"]
    said = chart(html, "of the place head by epoch").attrib["aria-label"]
    assert "by sources, all places, at best 0.4000; by sources, new places, at best 0.3000" in said


def test_one_epoch_is_a_dot() -> None:
    one = {**PICTURE, "history": PICTURE["history"][:1]}
    svg = chart(page(ABOUT, one), "of the vectors by epoch")
    assert len(list(svg.iter("circle"))) == 1
    assert list(svg.iter("polyline")) == []


def test_groups_stand_beside_the_simple_methods_with_intervals_and_the_oracle_is_no_rival(html: str) -> None:
    ((city, users, *means, minus),) = rows(html, "city")
    assert (city, users, minus) == ("Marenholm", "1,234", "+0.100+0.050 … +0.150")
    assert means == ["0.3000.250 … 0.350", "0.2000.150 … 0.250", "0.5000.450 … 0.550"]
    assert rows(html, "places")[0][0] == "0 to 12"


def test_calibration_is_drawn_where_it_was_said_and_came_true(html: str) -> None:
    svg = chart(html, "Expected calibration error 0.0125 over 400 labels, 2 bins.")
    few, many = svg.iter("circle")
    assert few.findtext("title") == "said 5.0%, came true 10.0%, 100 labels"
    assert float(many.attrib["r"]) / float(few.attrib["r"]) == pytest.approx(3**0.5, abs=0.02)
    left, right = 56.0, 344.0
    assert float(few.attrib["cx"]) == pytest.approx(left + 0.05 * (right - left), abs=0.1)
    assert html.count("Nothing to draw.") == 1, "no labels of attendance"


def test_the_worst_users_with_what_they_wanted_and_got(html: str) -> None:
    assert "User 7, Veldt, 3 places known: NDCG 0.123" in html
    assert "wanted 2: Glass Row, Old Mill" in html
    assert 'got: Bar 1, <b class="good">Old Mill</b>' in html
    assert "The worst users" not in page(ABOUT, {**PICTURE, "worst": None})


def test_dots_have_the_colour_of_their_group_the_largest_first(html: str) -> None:
    svg = chart(html, "Places by city: 3 shown; the two directions hold 25% of the variance.")
    assert [dot.attrib["class"] for dot in svg.iter("circle")] == ["c0", "c0", "c1"]
    assert "Veldt 2</li>" in html
    many = {**PICTURE["maps"][0], "x": [0.1] * 9, "y": [0.2] * 9, "group": list(range(9))}
    many["groups"] = [f"city {i}" for i in range(9)]
    assert "others 2</li>" in page(ABOUT, {**PICTURE, "maps": [many]})


def test_markup_in_the_data_is_shown_and_not_obeyed() -> None:
    bad = '<script>alert("1")</script>&\''
    picture = deepcopy(PICTURE)
    picture["groups"]["city"][0] = {**ROW, "group": bad}
    picture["worst"][0].update(city=bad, wanted=[bad], got=[bad, bad])
    picture["maps"][0].update(title=bad, groups=[bad, bad])
    reader = Reader(page({**ABOUT, "version": bad}, picture))
    assert reader.open == []
    assert "script" not in {tag for tag, _ in reader.tags}
    assert sum(text.count(bad) for text in reader.text) == 9


# -------------------------------------------------------------------------------------------------------- the figures
def test_groups_are_the_users_of_a_city_and_of_an_activity(
    snapshot: Snapshot, prepared: Prepared, result: Evaluation
) -> None:
    found = group_rows(result, snapshot, CITIES)
    home = dict(zip(snapshot.data["user"].user_id.tolist(), prepared.users.city.tolist(), strict=True))
    ndcg = result.per_user["model"][1]
    for row, city in zip(found["city"], (0, 1), strict=True):
        mine = np.array([home[u] == city for u in result.user_id.tolist()])
        assert (row["group"], row["users"]) == (CITIES[city], int(mine.sum()))
        mean, low, high = row["means"]["model"]
        assert mean == pytest.approx(ndcg[mine].mean())
        assert low <= mean <= high
        difference = ndcg[mine] - result.per_user["popularity"][1][mine]
        assert row["minus"]["popularity"][0] == pytest.approx(difference.mean())
    assert sum(row["users"] for row in found["activity"]) == result.users
    assert found["all"][0]["means"]["model"][0] == pytest.approx(result.rows["model"]["ndcg"])


def test_the_worst_users_got_what_evaluation_ranked(model: RecModel, prepared: Prepared, result: Evaluation) -> None:
    names = {int(i): f"P{i}" for i in prepared.snapshot.data["place"].place_id}
    found = worst_users(model, prepared, embed(model, prepared), result, cities=CITIES, places=names)
    ndcg = dict(zip(result.user_id.tolist(), result.per_user["model"][1].tolist(), strict=True))
    assert [row["ndcg"] for row in found] == pytest.approx(sorted(ndcg.values())[: len(found)])
    for row in found:
        assert row["ndcg"] == ndcg[row["user_id"]]
        assert row["hits"] == [name in row["wanted"] for name in row["got"]]
        gain = sum(1 / np.log2(i + 2) for i, hit in enumerate(row["hits"]) if hit)
        best = sum(1 / np.log2(i + 2) for i in range(min(5, len(row["wanted"]))))
        assert row["ndcg"] == pytest.approx(gain / best), "its list is the one that was measured"


def test_the_plane_of_most_variance_is_found_and_points_the_same_way() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 2, generator=generator) * torch.tensor([3.0, 1.0])
    basis = torch.linalg.qr(torch.randn(16, 2, generator=generator)).Q
    plane, explained = principal_plane(hidden @ basis.t() + 5.0)
    assert explained == pytest.approx(1.0, abs=1e-5)
    centred = hidden - hidden.mean(dim=0)
    torch.testing.assert_close(plane @ plane.t(), centred @ centred.t(), atol=1e-2, rtol=1e-3)
    again, _ = principal_plane(hidden @ basis.t() + 5.0)
    assert torch.equal(plane, again)


def test_maps_show_every_node_or_an_even_share_of_them(prepared: Prepared, model: RecModel) -> None:
    people, places, kinds = vector_maps(prepared, embed(model, prepared), cities=CITIES, categories=CATEGORIES)
    assert people["groups"] == ["Marenholm", "Veldt"]
    assert people["group"] == prepared.users.city.tolist()
    assert len(places["x"]) == len(kinds["y"]) == 90
    assert kinds["group"] == prepared.categories.argmax(dim=1).tolist()


def test_a_page_of_a_real_evaluation(
    snapshot: Snapshot, prepared: Prepared, model: RecModel, result: Evaluation
) -> None:
    vectors = embed(model, prepared)
    picture = {
        "history": PICTURE["history"],
        "groups": group_rows(result, snapshot, CITIES),
        "ece": {"friend": result.friend_ece, "attend": result.attend_ece},
        "reliability": result.reliability,
        "worst": worst_users(model, prepared, vectors, result, cities=CITIES, places={}),
        "maps": vector_maps(prepared, vectors, cities=CITIES, categories=CATEGORIES),
    }
    html = page({**ABOUT, "users": result.users}, picture)
    assert Reader(html).open == []
    assert len(svgs(html)) == 8
    assert not re.search(r"\b(nan|inf)\b", html)
