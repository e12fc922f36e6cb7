import json

import pytest

from recsys.errors import DataError
from recsys.taxonomy import CITY, FILE, MAX_TAGS, Taxonomy, Widths, read_taxonomy

SMALL = Taxonomy(("eat", "see"), ("soup", "art", "park"), (0, 1, 1), ("any",))


def test_the_synthetic_world_has_the_seeds_widths():
    widths = CITY.widths
    assert (widths.categories, widths.tags, widths.vibes) == (6, 100, 30)
    assert (widths.d_user, widths.d_place) == (148, 114)
    assert widths.user_x["vibe_pref"] == (108, 138)
    assert widths.place_x["popularity"] == (110, 114)


@pytest.mark.parametrize("widths", [CITY.widths, SMALL.widths, Widths(1, 1, 1)])
def test_layouts_are_contiguous_and_of_the_stated_width(widths):
    for layout, width in ((widths.user_x, widths.d_user), (widths.place_x, widths.d_place)):
        ends = [stop for _, stop in layout.values()]
        assert [start for start, _ in layout.values()] == [0, *ends[:-1]]
        assert ends[-1] == width
    assert widths.d_user == 2 + widths.categories + widths.tags + widths.vibes + 5 + 5
    assert widths.d_place == 2 + widths.categories + widths.tags + 6


def test_a_folder_without_one_has_the_synthetic_worlds(tmp_path):
    assert read_taxonomy(tmp_path) == CITY
    (tmp_path / FILE).write_text(json.dumps(SMALL.to_dict()))
    assert read_taxonomy(tmp_path) == SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": (), "tag_category": ()}, r"tags must name at least one \(got none\)"),
        ({"categories": ("eat", "eat")}, r"categories must be distinct \(got 'eat' twice\)"),
        ({"vibes": (" ",)}, r"vibes must be names that are not blank \(got ' '\)"),
        ({"tag_category": (0, 1, True)}, r"tag_category must lie in \[0, 2\) \(got True\)"),
        ({"tag_category": (0, 1)}, r"tag_category must have 3 entries \(got 2\)"),
        ({"tag_category": (0, 1, 2)}, r"tag_category must lie in \[0, 2\) \(got 2\)"),
        (
            {"tags": tuple(map(str, range(MAX_TAGS + 1))), "tag_category": (0,) * (MAX_TAGS + 1)},
            r"tags must be at most 512 \(got 513\)",
        ),
    ],
)
def test_names_that_cannot_be_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Taxonomy(**{**SMALL.to_dict(), **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", r"must be one JSON object \(got list\)"),
        ('{"tags": ["a"]}', r"categories must be a list \(got None\)"),
    ],
)
def test_a_file_that_is_none_is_refused(content, message, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DataError, match=message):
        read_taxonomy(tmp_path)
