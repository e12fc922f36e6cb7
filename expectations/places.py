"""What a place must be."""

from expectations.rules import Bounds, derived, elements, equal, known_since, present, text, unique, within
from recsys.quality import Suite
from recsys.schemas import PLACES

_KIND = "What kind of place it is, is said twice, by ids and by weights: both must be whole and say the same."


def suite(bounds: Bounds) -> Suite:
    """Rules for `places`."""
    return Suite(
        PLACES,
        (
            *present(
                PLACES,
                *(name for name, column in PLACES.columns.items() if not column.nullable),
                why="The contract has no empty cell but for positions: a model would read it as NaN.",
            ),
            unique(
                PLACES, why="Features, embeddings and points in the index are found by this id; the first row stays."
            ),
            *within(PLACES, "place_id", below=bounds.places, why="Ids count from 0, up to the data set's own size."),
            *text(
                "name",
                "city_name",
                "neighborhood_name",
                why="Answers and their reasons name the place and where it is.",
            ),
            *within(
                PLACES, "city_id", below=bounds.cities, why="Retrieval filters by city: in an unknown one it is lost."
            ),
            *within(
                PLACES,
                "neighborhood_id",
                below=bounds.neighborhoods,
                why="It indexes an embedding table whose size is the data set's own.",
            ),
            *within(PLACES, "latitude", "longitude", why="A map shows the place there; both may be unknown."),
            derived(
                "latitude and longitude are numbers, or both missing",
                "position.halves",
                # not isnan: over parquet, DuckDB 2 answers it from statistics, and those leave NaN out
                "(coalesce(NOT isfinite(latitude + longitude), (latitude IS NULL) != (longitude IS NULL)))::INTEGER",
                why="Half a position is none: a map would put the place on the wrong side of the world.",
                shows=("latitude", "longitude"),
                max_value=0,
            ),
            derived(
                "category_ids names a category", "category_ids.size", 'len("category_ids")', why=_KIND, min_value=1
            ),
            derived(
                "category_ids names each category once",
                "category_ids.repeats",
                "list_count(category_ids) - len(list_distinct(category_ids))",
                why=_KIND,
                max_value=0,
            ),
            *elements(PLACES, "category_ids", bounds, why=_KIND),
            *elements(PLACES, "category_one_hot", bounds, why=_KIND),
            equal(
                "category_ids",
                "category_one_hot",
                "list_filter(range(len(category_one_hot)), lambda i: category_one_hot[i + 1] > 0)::VARCHAR",
                of="list_sort(list_distinct(category_ids))::VARCHAR",
                why=_KIND,
            ),
            *elements(
                PLACES,
                "fine_tag_vector",
                bounds,
                why="Tags are a distribution over the same names as people's tastes: else the two do not compare.",
            ),
            *within(PLACES, "price_band", "typical_time_slot", why="They index tables of exactly that many rows."),
            *within(
                PLACES,
                "base_popularity",
                "avg_daily_visits",
                "conversion_rate",
                "novelty_score",
                why="Popularity is divided by and taken logarithms of: zero, negative or endless values break it.",
            ),
            known_since(bounds),
        ),
    )
