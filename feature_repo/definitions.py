"""The feature store, top to bottom: entities → sources → views → services.

Feast runs this file; `recsys.features` runs it too. Vectors and packed statistics are one field each, since every
field costs a hash field in Redis and a value to decode: the order inside `stats` stands in `recsys.constants`.
A row stamped t uses only events strictly before t.
"""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

from recsys.constants import PLACE_ACTIVITY, USER_ACTIVITY, USER_PLACE, USER_USER

# The jobs hand over their data folder; typed by hand, it is RECSYS_DATA_DIR or `data/` beside this folder.
_DEFAULT = os.environ.get("RECSYS_DATA_DIR") or Path(__file__).resolve().parent.parent / "data"
DATA = Path(globals().get("DATA_DIR", _DEFAULT)).resolve()
OWNER = "recommendations"

# entities ------------------------------------------------------------------------------------------------------------
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="a person", owner=OWNER)
place = Entity(name="place", join_keys=["place_id"], value_type=ValueType.INT64, description="a place", owner=OWNER)
# A pair of users is stored once, smaller id first: the two ends are the user entity in two roles.
user_u = Entity(name="user_u", join_keys=["user_u"], value_type=ValueType.INT64, description="smaller id of a pair")
user_v = Entity(name="user_v", join_keys=["user_v"], value_type=ValueType.INT64, description="larger id of a pair")


# sources -------------------------------------------------------------------------------------------------------------
def source(view: str) -> FileSource:
    """The parquet file that `recsys materialize` writes for a view."""
    return FileSource(
        name=f"{view}_parquet", path=str(DATA / "features" / f"{view}.parquet"), timestamp_field="event_timestamp"
    )


def stats(names: tuple[str, ...], about: str) -> Field:
    """One packed float32 field and, in its tags, what stands where."""
    return Field(
        name="stats", dtype=Array(Float32), description=about, tags={str(i): name for i, name in enumerate(names)}
    )


# views ---------------------------------------------------------------------------------------------------------------
user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=timedelta(0),  # a profile holds until the next one
    schema=[
        Field(name="name", dtype=String, description="what to call them"),
        Field(name="home_city_id", dtype=Int64, description="city they live in"),
        Field(name="home_neighborhood_id", dtype=Int64, description="neighborhood within that city"),
        Field(name="cat_pref", dtype=Array(Float32), description="weight by coarse category, sums to 1"),
        Field(name="fine_pref", dtype=Array(Float32), description="weight by fine tag, sums to 1"),
        Field(name="vibe_pref", dtype=Array(Float32), description="weight by vibe, sums to 1"),
        Field(name="area_ids", dtype=Array(Int64), description="neighborhoods they go out in, most frequent first"),
        Field(name="area_weights", dtype=Array(Float32), description="share of each of area_ids"),
    ],
    source=source("user_profile"),
    description="Who a user is and says to like.",
    owner=OWNER,
)
user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    ttl=timedelta(days=2),  # one row a day: older than two means that the job did not run
    schema=[stats(USER_ACTIVITY, "behaviour over rolling windows up to 28 days, scaled to [0, 1]")],
    source=source("user_activity"),
    description="What a user did lately, one row a day.",
    owner=OWNER,
)
place_profile = FeatureView(
    name="place_profile",
    entities=[place],
    ttl=timedelta(0),
    schema=[
        Field(name="name", dtype=String, description="what the place is called"),
        Field(name="city_id", dtype=Int64, description="city it is in"),
        Field(name="neighborhood_id", dtype=Int64, description="neighborhood within that city"),
        Field(name="category_one_hot", dtype=Array(Float32), description="weight by coarse category"),
        Field(name="fine_tag_vector", dtype=Array(Float32), description="weight by fine tag, sums to 1"),
        Field(name="price_band", dtype=Int64, description="0 (cheap) to 4 (expensive)"),
        Field(name="typical_time_slot", dtype=Int64, description="index into TIME_SLOTS"),
    ],
    source=source("place_profile"),
    description="What a place is.",
    owner=OWNER,
)
place_activity = FeatureView(
    name="place_activity",
    entities=[place],
    ttl=timedelta(days=2),
    schema=[stats(PLACE_ACTIVITY, "draw over rolling windows up to 28 days, scaled to [0, 1]")],
    source=source("place_activity"),
    description="How a place fares lately, one row a day.",
    owner=OWNER,
)
user_place = FeatureView(
    name="user_place",
    entities=[user, place],
    ttl=timedelta(days=366),
    schema=[
        stats(USER_PLACE, "mean over the pair's interactions so far of the seed's encoding, section 3.2.3"),
        Field(name="count", dtype=Int64, description="interactions so far"),
        # not a timestamp: Feast keeps those to the second online
        Field(name="last_at_us", dtype=Int64, description="moment of the last one, microseconds since the epoch"),
    ],
    source=source("user_place"),
    description="Edge of a user and a place, one row a day on which it changed. Online: pairs of the last 28 days.",
    owner=OWNER,
)
user_user = FeatureView(
    name="user_user",
    entities=[user_u, user_v],
    ttl=timedelta(days=366),
    schema=[stats(USER_USER, "interest overlap, co-attendance so far / 10, shared areas (seed, section 3.2.4)")],
    source=source("user_user"),
    description="Soft tie of two users, user_u < user_v, one row a day on which it changed.",
    owner=OWNER,
)

# services: what training pulls as of a moment, and what ranking reads online (a name each: Feast looks at names) ------
train_users = FeatureService(
    name="train_users_v1", features=[user_profile, user_activity], description="user nodes", owner=OWNER
)
train_places = FeatureService(
    name="train_places_v1", features=[place_profile, place_activity], description="place nodes", owner=OWNER
)
train_user_place = FeatureService(
    name="train_user_place_v1", features=[user_place], description="interacts edges", owner=OWNER
)
train_user_user = FeatureService(
    name="train_user_user_v1", features=[user_user], description="social edges", owner=OWNER
)
query_user = FeatureService(
    name="query_user_v1", features=[user_profile, user_activity], description="the one who asks", owner=OWNER
)
show_places = FeatureService(
    name="show_places_v1", features=[place_profile], description="what an answer says of a place", owner=OWNER
)
rank_places = FeatureService(
    name="rank_places_v1", features=[place_activity, user_place], description="candidate places", owner=OWNER
)
rank_people = FeatureService(
    name="rank_people_v1", features=[user_activity, user_user], description="candidate people", owner=OWNER
)
