"""What a user must be."""

from expectations.rules import Bounds, derived, elements, known_since, present, text, unique, within
from recsys.constants import MAX_NEIGHBORHOODS_PER_USER
from recsys.quality import Suite
from recsys.schemas import USERS

_TASTE = "Tastes are a distribution over a fixed list of names: a short, stretched or broken one compares with none."
_AREAS = "Where someone goes is a distribution over the neighbourhoods of their city; the graph holds five of them."


def suite(bounds: Bounds) -> Suite:
    """Rules for `users`."""
    keys = "map_keys(area_freqs)"
    return Suite(
        USERS,
        (
            *present(USERS, *USERS.columns, why="The contract has no empty cell: a model would read it as NaN."),
            unique(
                USERS, why="Features, embeddings and points in the index are found by this id; the first row stays."
            ),
            *within(USERS, "user_id", below=bounds.users, why="Ids count from 0, up to the data set's own size."),
            *text("name", why="Answers call people by their names."),
            *within(
                USERS,
                "home_city_id",
                below=bounds.cities,
                why="Retrieval is within one city: an unknown one finds nothing.",
            ),
            *within(
                USERS,
                "home_neighborhood_id",
                below=bounds.neighborhoods,
                why="It indexes an embedding table whose size is the data set's own.",
            ),
            *elements(USERS, "cat_pref", bounds, why=_TASTE),
            *elements(USERS, "fine_pref", bounds, why=_TASTE),
            *elements(USERS, "vibe_pref", bounds, why=_TASTE),
            *elements(USERS, "area_freqs", bounds, why=_AREAS),
            derived(
                f"area_freqs names at most {MAX_NEIGHBORHOODS_PER_USER} neighbourhoods",
                "area_freqs.size",
                'cardinality("area_freqs")',
                why=_AREAS,
                max_value=MAX_NEIGHBORHOODS_PER_USER,
            ),
            derived(
                "area_freqs names each neighbourhood once",
                "area_freqs.repeats",
                f"len({keys}) - len(list_distinct({keys}))",
                why=_AREAS,
                max_value=0,
            ),
            derived(
                "area_freqs names no neighbourhood below 0",
                "area_freqs.first",
                f"list_min({keys})",
                why=_AREAS,
                min_value=0,
            ),
            derived(
                f"area_freqs names no neighbourhood above {bounds.neighborhoods - 1}",
                "area_freqs.last",
                f"list_max({keys})",
                why=_AREAS,
                max_value=bounds.neighborhoods - 1,
            ),
            *within(
                USERS,
                "avg_sessions_per_week",
                "avg_views_per_session",
                why="Someone who never comes, or comes and sees nothing, is no user.",
            ),
            *within(
                USERS,
                "avg_likes_per_session",
                "avg_saves_per_session",
                "avg_attends_per_month",
                why="Rates count what happened: none may be negative or infinite.",
            ),
            known_since(bounds),
        ),
    )
