"""The taxonomy and the layouts hold together."""

from datetime import UTC, datetime, timedelta

from recsys import constants as c


def test_taxonomy_has_the_seeds_sizes_and_its_first_names():
    assert (c.C_COARSE, c.C_FINE, c.C_VIBE) == (6, 100, 30)
    assert len(set(c.FINE_TAGS)) == 100
    assert len(set(c.VIBE_TAGS)) == 30
    assert c.FINE_TAGS[:5] == ("fishing", "bouldering", "techno", "live_music", "board_games")
    assert c.FINE_TAGS[19] == "cycling"
    assert c.VIBE_TAGS[:15] == (
        "introvert", "extrovert", "party", "fitness", "artsy", "night_owl", "early_bird", "foodie", "adventurous",
        "chill", "intellectual", "spontaneous", "planner", "social", "independent",
    )  # fmt: skip


def test_tags_belong_to_categories_by_meaning():
    by_name = {tag: c.COARSE_CATEGORIES[c.TAG_CATEGORY[i]] for i, tag in enumerate(c.FINE_TAGS)}
    assert by_name["fishing"] == "outdoors"
    assert by_name["techno"] == "clubs"
    assert by_name["pottery"] == "culture"
    assert sorted(t for tags in c.TAGS_BY_CATEGORY.values() for t in tags) == sorted(c.FINE_TAGS)


def test_every_hour_of_a_week_has_the_slot_its_name_says():
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    seen = set()
    for hour in range(24 * 7):
        moment = monday + timedelta(hours=hour)
        name = c.TIME_SLOTS[c.time_slot(moment.hour, moment.weekday())]
        seen.add(name)
        assert name.startswith("weekend") == (moment.weekday() >= 5)
        if moment.hour < 6 or moment.hour >= 18:
            assert name in ("night", "evening", "weekend_night")
        else:
            assert name in ("morning", "afternoon", "weekend_day")
    assert seen == set(c.TIME_SLOTS)
