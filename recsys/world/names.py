"""Names for people, places, cities and neighbourhoods. All of them are made up; family names are built of syllables."""

from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.world.streams import Stream, blocks, stream

CITY_NAMES: Final = (
    "Marenholm", "Port Alsey", "Tessaline", "Quillhaven", "Brackwater", "Solmere", "Ostravelle", "Vantry",
    "Dunmarrow", "Elverton Bay", "Kestrelford", "Lindaria", "Norrwick", "Pellanova", "Ravensby", "Saltmouth",
)  # fmt: skip

# Latitude and longitude, degrees, of the middle of each city: out at sea, so that no map shows a real place.
CITY_POSITIONS: Final = (
    (46.2, -31.4), (38.9, -28.7), (41.5, -37.2), (50.3, -24.6), (53.1, -29.8), (35.7, -41.3), (48.4, -38.5),
    (43.3, -24.9), (55.6, -33.0), (37.1, -34.4), (51.8, -40.2), (33.9, -30.6), (57.2, -26.1), (40.2, -44.8),
    (45.0, -42.1), (36.4, -47.5),
)  # fmt: skip

_STEMS: Final = (
    "Alder", "Amber", "Beacon", "Birch", "Canal", "Cedar", "Chapel", "Copper", "Crane", "Elm", "Ferry", "Foundry",
    "Glass", "Harbor", "Heron", "Iron", "Juniper", "Lantern", "Linden", "Market", "Mill", "Orchard", "Quarry", "River",
)  # fmt: skip
_SUFFIXES: Final = ("side", " Hill", " Park", " Quarter", "gate", " Row", " Yards", " Green", "field", " Heights")
# Every stem with every suffix, once; any 24 in a row have 24 stems, so that a city does not get ten kinds of Alder.
NEIGHBORHOOD_NAMES: Final[tuple[str, ...]] = tuple(
    _STEMS[i * 7 % 24] + _SUFFIXES[(i % 24 + i // 24) % 10] for i in range(240)
)

_GIVEN: Final = (
    "Ada", "Aiko", "Alba", "Amara", "Amir", "Anders", "Anouk", "Aria", "Arun", "Aya", "Bea", "Bruno", "Carmen",
    "Caspar", "Celia", "Chidi", "Clara", "Dario", "Davi", "Dina", "Edda", "Elif", "Emil", "Enzo", "Esme", "Farah",
    "Felix", "Femi", "Freya", "Gael", "Greta", "Hana", "Hugo", "Ida", "Idris", "Ilse", "Imani", "Ines", "Iris",
    "Ivo", "Jana", "Jasper", "Joon", "Jun", "Kai", "Kamal", "Karin", "Kofi", "Lars", "Leila", "Leo", "Lien", "Lina",
    "Luca", "Mads", "Mai", "Malik", "Mara", "Mateo", "Maya", "Mei", "Milo", "Mina", "Nadia", "Nico", "Nia", "Nils",
    "Noor", "Odile", "Olu", "Omar", "Oona", "Otto", "Pablo", "Petra", "Priya", "Quinn", "Rafa", "Ravi", "Remy",
    "Rosa", "Runa", "Sami", "Sana", "Selma", "Sofia", "Stig", "Suki", "Talia", "Tariq", "Teo", "Thea", "Tomas",
    "Uma", "Vera", "Viggo", "Wen", "Yara", "Yuki", "Zain", "Zoe",
)  # fmt: skip
_FAMILY_HEADS: Final = (
    "Ar", "Bel", "Bran", "Cal", "Cor", "Dal", "Der", "El", "Fal", "Fen", "Gar", "Hal", "Jor", "Kel", "Lor", "Mar",
    "Mel", "Nor", "Or", "Per", "Quin", "Ren", "Sal", "Ser", "Tal", "Tor", "Ul", "Ver", "Wal", "Zan",
)  # fmt: skip
_FAMILY_MIDDLES: Final = ("a", "e", "i", "o", "an", "en", "in", "or", "ar", "un")
_FAMILY_TAILS: Final = (
    "beck", "bright", "dale", "dell", "dine", "dorn", "fell", "gard", "lind", "lott", "mere", "mont", "nell", "quist",
    "rell", "row", "shaw", "stad", "tano", "tell", "ther", "vane", "vik", "well", "wick",
)  # fmt: skip

_ADJECTIVES: Final = (
    "Amber", "Blue", "Bright", "Copper", "Crooked", "Crimson", "Drifting", "Early", "Electric", "Emerald", "Gilded",
    "Golden", "Grand", "Green", "Hidden", "Hollow", "Humble", "Indigo", "Iron", "Ivory", "Little", "Long", "Lucky",
    "Lunar", "Marble", "Mellow", "Midnight", "Northern", "Old", "Open", "Painted", "Paper", "Pearl", "Quiet", "Red",
    "Restless", "Rolling", "Royal", "Salty", "Scarlet", "Second", "Secret", "Silent", "Silver", "Slow", "Southern",
    "Sunny", "Tall", "Tiny", "Twin", "Velvet", "Wandering", "Wild", "Winter",
)  # fmt: skip
_NOUNS: Final = (
    "Acorn", "Anchor", "Arrow", "Badger", "Barrel", "Bell", "Birch", "Bridge", "Candle", "Canvas", "Cloud", "Comet",
    "Compass", "Crow", "Drum", "Ember", "Falcon", "Feather", "Fern", "Fox", "Garden", "Hare", "Harp", "Hat", "Heron",
    "Hive", "Horse", "Key", "Kite", "Lantern", "Leaf", "Lion", "Maple", "Moon", "Moth", "Oak", "Otter", "Owl", "Pine",
    "Plum", "Pony", "Raven", "River", "Rose", "Sail", "Spoon", "Sparrow", "Star", "Stone", "Swan", "Thistle", "Tiger",
    "Tower", "Turtle", "Wave", "Whale", "Wheel", "Willow", "Wolf", "Wren",
)  # fmt: skip
# By category, in the order of constants.COARSE_CATEGORIES.
_KINDS: Final = (
    ("Playhouse", "Parlour", "Stage", "Games Room", "Lanes", "Comedy Cellar"),
    ("Gym", "Courts", "Climbing Hall", "Studio", "Track", "Sports Club"),
    ("Club", "Lounge", "Bar", "Dance Hall", "Cellar", "Rooms"),
    ("Kitchen", "Bistro", "Café", "Tavern", "Diner", "Table"),
    ("Trail", "Lake", "Gardens", "Lookout", "Boathouse", "Meadow"),
    ("Gallery", "Theatre", "Museum", "Workshop", "Library", "Hall"),
)


def neighborhood_name(city: int, neighborhood: int, neighborhoods: int) -> str:
    """The name of one neighbourhood of a world with so many a city; no two of a world share one."""
    return NEIGHBORHOOD_NAMES[city * neighborhoods + neighborhood]


def user_names(seed: int, count: int) -> list[str]:
    """One name a user; several may share one, as people do."""
    names: list[str] = []
    for block, (start, stop) in enumerate(blocks(count)):
        rng = stream(seed, Stream.USER_NAMES, block)
        parts = (_GIVEN, _FAMILY_HEADS, _FAMILY_MIDDLES, _FAMILY_TAILS)
        drawn = [rng.integers(0, len(p), stop - start) for p in parts]
        for given, head, middle, tail in zip(*drawn, strict=True):
            names.append(f"{_GIVEN[given]} {_FAMILY_HEADS[head]}{_FAMILY_MIDDLES[middle]}{_FAMILY_TAILS[tail]}")
    return names


def place_names(seed: int, category: npt.NDArray[np.int64]) -> list[str]:
    """One name a place, after its first category.

    Args:
        category: (M,) index into `COARSE_CATEGORIES`.
    """
    names: list[str] = []
    for block, (start, stop) in enumerate(blocks(len(category))):
        rng = stream(seed, Stream.PLACE_NAMES, block)
        size = stop - start
        adjectives = rng.integers(0, len(_ADJECTIVES), size)
        nouns = rng.integers(0, len(_NOUNS), size)
        kinds = rng.integers(0, len(_KINDS[0]), size)
        for a, n, k, c in zip(adjectives, nouns, kinds, category[start:stop], strict=True):
            names.append(f"The {_ADJECTIVES[a]} {_NOUNS[n]} {_KINDS[c][k]}")
    return names
