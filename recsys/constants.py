"""Taxonomy and every dimension that training and serving share.

The names, their order and the tensor widths are a contract: artifacts, Feast views and the API all index by
position. Source: the seed document, section 2.1; tags belong to categories by meaning (amendment 7).
"""

from typing import Final

COARSE_CATEGORIES: Final = ("entertainment", "sports", "clubs", "dining", "outdoors", "culture")

# One explicit row per category: its fine tags. The first 20 positions of FINE_TAGS below are fixed by the seed.
TAGS_BY_CATEGORY: Final[dict[str, tuple[str, ...]]] = {
    "entertainment": (
        "live_music", "board_games", "karaoke", "trivia", "comedy", "escape_room", "bowling", "arcade",
        "billiards", "open_mic", "magic_show", "video_games", "mini_golf", "quiz_night", "immersive_show",
        "drag_show",
    ),
    "sports": (
        "bouldering", "yoga", "crossfit", "rock_climbing", "cycling", "running", "swimming", "tennis",
        "football", "basketball", "volleyball", "martial_arts", "pilates", "badminton", "skating", "spinning",
        "table_tennis",
    ),
    "clubs": (
        "techno", "jazz", "dance", "house_music", "hip_hop", "salsa", "indie_rock", "drum_and_bass",
        "cocktail_bar", "speakeasy", "disco", "latin_night", "afterparty", "student_night", "reggae",
        "beach_club",
    ),
    "dining": (
        "rooftop", "brunch", "wine_tasting", "coffee", "street_food", "sushi", "vegan", "pizza", "ramen",
        "barbecue", "tapas", "craft_beer", "bakery", "fine_dining", "seafood", "tea_house", "ice_cream",
    ),
    "outdoors": (
        "fishing", "hiking", "picnic", "kayaking", "camping", "birdwatching", "surfing", "sailing",
        "stargazing", "horse_riding", "botanical_garden", "beach", "paddle_boarding", "foraging",
        "trail_running", "dog_park", "sunset_viewpoint",
    ),
    "culture": (
        "art_gallery", "theater", "pottery", "museum", "opera", "ballet", "poetry", "book_club",
        "film_festival", "photography", "street_art", "history_tour", "classical_music", "craft_market",
        "architecture", "language_exchange", "painting_class",
    ),
}  # fmt: skip

_FIRST_TAGS: Final = (
    "fishing", "bouldering", "techno", "live_music", "board_games", "rooftop", "brunch", "karaoke", "jazz",
    "trivia", "wine_tasting", "comedy", "art_gallery", "theater", "dance", "pottery", "yoga", "crossfit",
    "rock_climbing", "cycling",
)  # fmt: skip
FINE_TAGS: Final[tuple[str, ...]] = _FIRST_TAGS + tuple(
    tag for tags in TAGS_BY_CATEGORY.values() for tag in tags if tag not in _FIRST_TAGS
)
# Position: fine tag, value: index of its category.
TAG_CATEGORY: Final[tuple[int, ...]] = tuple(
    next(i for i, c in enumerate(COARSE_CATEGORIES) if tag in TAGS_BY_CATEGORY[c]) for tag in FINE_TAGS
)

VIBE_TAGS: Final = (
    "introvert", "extrovert", "party", "fitness", "artsy", "night_owl", "early_bird", "foodie", "adventurous",
    "chill", "intellectual", "spontaneous", "planner", "social", "independent", "romantic", "competitive",
    "curious", "nostalgic", "minimalist", "trendsetter", "nature_lover", "bookish", "music_lover", "mindful",
    "playful", "family_minded", "traveller", "frugal", "luxurious",
)  # fmt: skip

C_COARSE: Final = len(COARSE_CATEGORIES)
C_FINE: Final = len(FINE_TAGS)
C_VIBE: Final = len(VIBE_TAGS)

# Default scale of the synthetic world; a data set's own sizes rule everywhere else (amendment 8).
N_USERS: Final = 10_000
N_PLACES: Final = 10_000
N_CITIES: Final = 8
N_NEIGHBORHOODS_PER_CITY: Final = 15
N_PRICE_BANDS: Final = 5
MAX_NEIGHBORHOODS_PER_USER: Final = 5

TIME_OF_DAY_BUCKETS: Final = ("morning", "afternoon", "evening", "night")
DAY_OF_WEEK_BUCKETS: Final = ("weekday", "weekend")
TIME_SLOTS: Final = ("morning", "afternoon", "evening", "night", "weekend_day", "weekend_night")
N_TIME_OF_DAY: Final = len(TIME_OF_DAY_BUCKETS)
N_DAY_OF_WEEK: Final = len(DAY_OF_WEEK_BUCKETS)
N_TIME_SLOTS: Final = len(TIME_SLOTS)
SLOT_NOT_SAID: Final = N_TIME_SLOTS  # a request without a slot: its own embedding row, not a guess

# The one map between hours, weekdays and slots (amendment 6), as tables so that numpy, Python and SQL index alike.
TIME_OF_DAY_BY_HOUR: Final = (3,) * 6 + (0,) * 6 + (1,) * 6 + (2,) * 6
# [day of week bucket][time of day bucket] → slot
SLOT_BY_DAY_AND_TIME: Final = ((0, 1, 2, 3), (4, 4, 5, 5))


def time_slot(hour: int, weekday: int) -> int:
    """The slot of a moment.

    Args:
        hour: hour of the day, 0 to 23.
        weekday: ISO order from Monday = 0 to Sunday = 6, as `datetime.weekday()`.

    Returns:
        Index into `TIME_SLOTS`.
    """
    return SLOT_BY_DAY_AND_TIME[int(weekday >= 5)][TIME_OF_DAY_BY_HOUR[hour]]


# What places may be filtered by: columns of an artifact's `places`, payload of the index.
FACETS: Final = ("price_band", "categories", "tags", "neighborhood_id", "typical_time_slot")

POSITIVE_RATING: Final = 3.5  # implicit rating from which an interaction counts as a positive
VISIT_SECONDS: Final = 150.0  # how long a visit of unknown length is taken to last, and any other event
VIEW_SECONDS: Final = 30.0

D_EDGE_USER_PLACE: Final = 12
D_EDGE_USER_USER: Final = 3
D_MODEL: Final = 128
D_CONTEXT: Final = 16
