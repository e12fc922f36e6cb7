"""The feature store, top to bottom: entities → sources → views → services.

Feast runs this file; `recsys.features` runs it too. Vectors and packed statistics are one field each, since every
field costs a hash field in Redis and a value to decode: what stands where is in the field's tags.
A row stamped t uses only events strictly before t.
"""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import Array, Float32, Float64, Int64, String

from recsys.aggregates import (
    ACTIVITY_HEAD,
    ACTIVITY_TTL,
    PAIR_HEAD,
    PLACE_COUNTERS,
    RECENT_HEAD,
    TIE_STATE,
    USER_COUNTERS,
    USER_PLACE,
)

# The jobs hand over their data folder; typed by hand, it is RECSYS_DATA_DIR or `data/` beside this folder.
_DEFAULT = os.environ.get("RECSYS_DATA_DIR") or Path(__file__).resolve().parent.parent / "data"
DATA = Path(globals().get("DATA_DIR", _DEFAULT)).resolve()
# Which engine reads history: that of the configuration; typed by hand, RECSYS_ENGINE says it.
ENGINE = str(globals().get("ENGINE", os.environ.get("RECSYS_ENGINE", "duckdb")))
OWNER = "recommendations"

# entities ------------------------------------------------------------------------------------------------------------
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="a person", owner=OWNER)
place = Entity(name="place", join_keys=["place_id"], value_type=ValueType.INT64, description="a place", owner=OWNER)
# A pair of users is stored once, smaller id first: the two ends are the user entity in two roles.
user_u = Entity(name="user_u", join_keys=["user_u"], value_type=ValueType.INT64, description="smaller id of a pair")
user_v = Entity(name="user_v", join_keys=["user_v"], value_type=ValueType.INT64, description="larger id of a pair")


# sources -------------------------------------------------------------------------------------------------------------
def source(view: str) -> DataSource:
    """The folder of parquet files that `recsys materialize` writes for a view, which Feast reads as one."""
    path, stamp = str(DATA / "features" / f"{view}.parquet"), "event_timestamp"
    if ENGINE == "spark":
        return SparkSource(name=f"{view}_spark", path=path, file_format="parquet", timestamp_field=stamp)
    return FileSource(name=f"{view}_parquet", path=path, timestamp_field=stamp)


def state(about: str, *names: str, then: tuple[str, ...] = (), field: str = "state") -> Field:
    """One packed field and, in its tags, what stands where: by position, then what repeats to its end."""
    tags = {str(i): name for i, name in enumerate(names)}
    return Field(
        name=field, dtype=Array(Float64), description=about, tags=tags | ({"then": ",".join(then)} if then else {})
    )


def tags(cadence: str, online: str) -> dict[str, str]:
    """How often rows come, and which of them are online."""
    return {"cadence": cadence, "online": online, "made_by": "recsys.aggregates"}


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
    tags=tags("when it changes", "all"),
)
user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    # Rows are stamped up to a day after the last event in them: `recsys.aggregates.finish` applies the exact rule.
    ttl=ACTIVITY_TTL + timedelta(days=1),
    schema=[
        state(
            "what a user did, by day, over the last 28 days; finished as of a moment by recsys.aggregates",
            *ACTIVITY_HEAD,
            then=("day", *(c.name for c in USER_COUNTERS)),
        )
    ],
    source=source("user_activity"),
    description="What a user did lately, a row for each day on which they did something.",
    owner=OWNER,
    tags=tags("daily", "all"),
)
user_recent = FeatureView(
    name="user_recent",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        state("last places of a user and when, newest first, at most 50", *RECENT_HEAD, then=("place_id", "at_us"))
    ],
    source=source("user_recent"),
    description="Where a user was or looked lately, a row for each day on which they did something.",
    owner=OWNER,
    tags=tags("daily", "all"),
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
    tags=tags("when it changes", "all"),
)
place_activity = FeatureView(
    name="place_activity",
    entities=[place],
    ttl=ACTIVITY_TTL + timedelta(days=1),
    schema=[
        state(
            "what happened at a place, by day, over the last 28 days; finished as of a moment by recsys.aggregates",
            *ACTIVITY_HEAD,
            then=("day", *(c.name for c in PLACE_COUNTERS)),
        )
    ],
    source=source("place_activity"),
    description="How a place fares lately, a row for each day on which something happened.",
    owner=OWNER,
    tags=tags("daily", "all"),
)
user_place = FeatureView(
    name="user_place",
    entities=[user, place],
    ttl=timedelta(days=366),
    schema=[
        state(
            "sums of the seed's encoding of an interaction (section 3.2.3) since the last silence of more than 28 days",
            *PAIR_HEAD,
            *(c.name for c in USER_PLACE),
        ),
        state(
            "the same since the beginning: the edge of the graph, in history only",
            *PAIR_HEAD,
            *(c.name for c in USER_PLACE),
            field="so_far",
        ),
    ],
    source=source("user_place"),
    description="Edge of a user and a place, one row a day on which it changed.",
    owner=OWNER,
    tags=tags("daily", "pairs of the last 28 days"),
)
user_user = FeatureView(
    name="user_user",
    entities=[user_u, user_v],
    ttl=timedelta(0),  # a tie holds until it changes
    schema=[state("how alike two users are, and how often they met so far (seed, section 3.2.4)", *TIE_STATE)],
    source=source("user_user"),
    description="Soft tie of two users, user_u < user_v, one row a day on which it changed.",
    owner=OWNER,
    tags=tags("daily", "all"),
)


# services: what training pulls as of a moment, and what ranking reads online (a name each: Feast looks at names) ------
def service(name: str, about: str, *views: FeatureView) -> FeatureService:
    """A versioned bundle of views: a model is trained and served against one."""
    return FeatureService(name=name, features=list(views), description=about, owner=OWNER, tags={"model": "recsys"})


train_users = service("train_users_v1", "user nodes", user_profile, user_activity)
train_places = service("train_places_v1", "place nodes", place_profile, place_activity)
train_user_place = service("train_user_place_v1", "interacts edges", user_place)
train_user_user = service("train_user_user_v1", "social edges", user_user)
query_user = service("query_user_v1", "the one who asks", user_profile, user_activity, user_recent)
show_places = service("show_places_v1", "what an answer says of a place", place_profile)
rank_places = service("rank_places_v1", "candidate places", place_activity, user_place)
rank_people = service("rank_people_v1", "candidate people", user_activity, user_user)
