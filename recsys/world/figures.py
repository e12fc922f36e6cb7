"""Figures of a world: what there is to learn in it, held against its truth, and a picture of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.constants import COARSE_CATEGORIES, FINE_TAGS, TIME_SLOTS, VIBE_TAGS
from recsys.world.config import WorldConfig
from recsys.world.interactions import WEEK_US, slots
from recsys.world.names import CITY_NAMES, neighborhood_name, user_names
from recsys.world.places import Ints, neighborhood_positions, place_positions
from recsys.world.social import Edges
from recsys.world.tally import RATING_EDGES, Tally
from recsys.world.truth import Doubles, Truth

# What preset `city` is calibrated to at 10,000 × 10,000: figure, what it says, lowest and highest; shares in [0, 1].
RANGES: Final = (
    ("interactions", "interactions", 2_000_000, 3_500_000),
    ("social_edges", "social edges", 120_000, 400_000),
    ("friend_labels", "friend labels", 150_000, 500_000),
    ("gini_over_places", "Gini of interactions over places", 0.60, 0.75),
    ("oracle_auc", "oracle AUC: does a user interact with this place of the city", 0.88, 1.0),
    ("popularity_auc", "popularity AUC for the same", 0.65, 0.78),
    ("positives_share", "interactions rated 3.5 and more", 0.15, 0.35),
    ("attended_share", "interactions attended", 0.03, 0.08),
    ("repeat_share", "interactions that repeat a pair", 0.20, 0.40),
    ("moment_gain", "oracle NDCG@10 with the moment known, over without", 0.08, None),
    ("edges_met_once_share", "social edges with co-attendance", 0.10, 0.35),
    ("edges_met_twice_share", "social edges with two and more", 0.03, 0.12),
    ("compat_share", "friend labels that are compatible", 0.35, 0.65),
    ("attend_share_of_compat", "compatible pairs that attend", 0.30, 0.70),
    ("late_users_share", "users first seen in the last third", 0.05, 0.15),
    ("late_places_share", "places first seen in the last third", 0.05, 0.15),
)
_FULL: Final = 10_000  # users and places that the ranges are for
_COUNTS: Final = frozenset({"interactions", "social_edges", "friend_labels"})
_PLAIN: Final = frozenset({*_COUNTS, "gini_over_places", "oracle_auc", "popularity_auc"})
_BLOCK: Final = 128  # users held against the truth at once
_TOP: Final = 10
_ON_MAP: Final = 1_500
_DAYS: Final = ("weekday", "weekend")
_TIMES: Final = ("mornings", "afternoons", "evenings", "nights")
_MEANS: Final = ("the cheapest", "cheap", "middling", "good", "the most expensive")
_DEGREES: Final = np.array([0, 10, 20, 25, 30, 35, 40, 60])


def judge(truth: Truth, tally: Tally) -> dict[str, float]:
    """Hold a sample of the users against the truth and against popularity, in their home cities.

    Returns:
        oracle_auc, popularity_auc: of who interacts with which place of the city, without lasting likings, mean over
        users. moment_gain: by how much the oracle's NDCG@10 of the places of a time slot grows when it knows the slot.
    """
    config = truth.config
    user, place, moment = tally.sample
    oracle, popular, blind, seeing = [], [], [], []
    # the last sixth of the horizon: two weeks of twelve
    window = (config.end_us - (config.end_us - config.start_us) // 6, config.end_us)
    for city in truth.cities:
        mine = (truth.users.city[user] == city.number) & (truth.places.city[place] == city.number)
        everyone = np.unique(user[mine])
        if len(city.ids) < 2:
            continue
        position = np.full(len(truth.places), -1)
        position[city.ids] = np.arange(len(city.ids))
        for low in range(0, len(everyone), _BLOCK):
            who = everyone[low : low + _BLOCK]
            at = np.flatnonzero(mine & np.isin(user, who))
            row, column = np.searchsorted(who, user[at]), position[place[at]]
            went = _marked(len(who), len(city.ids), row, column)
            oracle.append(row_auc(truth.shares(who, city), went))
            popular.append(row_auc(np.broadcast_to(tally.visits[city.ids].astype(np.float64), went.shape), went))
            late = moment[at] >= window[0]
            whenever = truth.shares(who, city, window)
            slot = slots(moment[at])
            for now in range(len(TIME_SLOTS)):
                then = late & (slot == now)
                wanted = _marked(len(who), len(city.ids), row[then], column[then])
                blind.append(_ndcg(whenever, wanted))
                seeing.append(_ndcg(truth.shares(who, city, window, slot=now), wanted))
    without, known = _mean(blind), _mean(seeing)
    return {
        "oracle_auc": round(_mean(oracle), 4),
        "popularity_auc": round(_mean(popular), 4),
        "moment_gain": round(known / without - 1, 4) if without else 0.0,
    }


def table(config: WorldConfig, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures beside the ranges that preset `city` keeps to at full size; other worlds have no ranges."""
    ranged = config.preset == "city" and config.users == config.places == _FULL
    rows = []
    for name, label, low, high in RANGES:
        value, row = figures[name], {"figure": label, "unit": "" if name in _PLAIN else "%"}
        ok = low <= value and (high is None or value <= high)
        rows.append({**row, "value": value, "low": low if ranged else None, "high": high if ranged else None,
                     "ok": ok or not ranged})  # fmt: skip
    return rows


def picture(truth: Truth, tally: Tally, edges: Edges, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What a page draws of a world; JSON values only."""
    config, users, places = truth.config, truth.users, truth.places
    ordered = np.concatenate([[0], np.cumsum(np.sort(tally.visits)[::-1])])
    at = np.round(np.linspace(0, len(places), 101)).astype(np.int64)
    degree = np.bincount(np.concatenate([edges.u, edges.v]), minlength=len(users))
    by_degree = np.bincount(np.searchsorted(_DEGREES, degree, side="right") - 1, minlength=len(_DEGREES))
    return {
        "table": table(config, figures),
        "lorenz": {
            "places": (at / len(places)).round(4).tolist(),
            "interactions": (ordered[at] / max(int(ordered[-1]), 1)).round(5).tolist(),
        },
        "by_hour": tally.by_hour.tolist(),
        "by_week": tally.by_week.tolist(),
        "cities": [
            {
                "city": CITY_NAMES[c],
                "users": int((users.city == c).sum()),
                "places": int((places.city == c).sum()),
                "interactions": int(tally.by_city[c]),
            }
            for c in range(config.cities)
        ],
        "degree": {"edges": _DEGREES.tolist(), "users": by_degree.tolist()},
        "ratings": {"edges": RATING_EDGES.tolist(), "interactions": tally.ratings.tolist()},
        "map": _map(truth, tally),
        "people": _people(truth),
    }


def _map(truth: Truth, tally: Tally) -> dict[str, Any]:
    """The largest city: its most visited places, and its neighbourhoods."""
    config, places = truth.config, truth.places
    city = int(np.bincount(places.city, minlength=config.cities).argmax())
    here = np.flatnonzero(places.city == city)
    here = here[np.argsort(-tally.visits[here], kind="stable")][:_ON_MAP]
    where, centers = place_positions(config, places)[here], neighborhood_positions(config)[city]
    return {
        "city": CITY_NAMES[city],
        "places": [
            {"lat": round(float(lat), 5), "lon": round(float(lon), 5), "visits": int(visits), "category": int(category)}
            for (lat, lon), visits, category in zip(
                where, tally.visits[here], places.categories[here].argmax(axis=1), strict=True
            )
        ],
        "neighborhoods": [
            {
                "name": neighborhood_name(city, n, config.neighborhoods),
                "lat": round(float(lat), 5),
                "lon": round(float(lon), 5),
            }
            for n, (lat, lon) in enumerate(centers)
        ],
    }


def _people(truth: Truth) -> list[str]:
    """Some users in words, spread over the ids."""
    chosen = np.unique(np.linspace(0, len(truth.users) - 1, 5).astype(np.int64))
    names = user_names(truth.config.seed, len(truth.users))
    return [_in_words(truth, u, names[u]) for u in chosen.tolist()]


def _in_words(truth: Truth, u: int, name: str) -> str:
    config, users = truth.config, truth.users

    def best(weights: npt.NDArray[np.float32], names: Sequence[str], count: int) -> list[str]:
        return [names[i].replace("_", " ") for i in np.argsort(-weights[u])[:count]]

    home, part = int(users.city[u]), int(users.rhythm[u].argmax())
    area = neighborhood_name(home, int(users.neighborhood[u]), config.neighborhoods)
    vibes, tags = best(users.vibe_pref, VIBE_TAGS, 2), best(users.fine_pref, FINE_TAGS, 3)
    words = (
        f"{name} lives in {area} in {CITY_NAMES[home]} and likes {best(users.cat_pref, COARSE_CATEGORIES, 1)[0]} most: "
        f"{', '.join(tags)}. {' and '.join(vibes).capitalize()}, goes out on {_DAYS[part // 4]} {_TIMES[part % 4]}, "
        f"to {_MEANS[round(float(users.means[u]))]} places."
    )
    if config.numbers.drift:
        words += f" By the end, {best(users.later_fine, FINE_TAGS, 1)[0]} has grown on them."
    if weeks := int((users.where[u] != home).sum()):
        words += f" Away for {weeks} of {config.weeks} weeks."
    if users.joined[u] > config.start_us:
        words += f" Joined in week {1 + (int(users.joined[u]) - config.start_us) // WEEK_US}."
    return words


def row_auc(scores: Doubles, positive: npt.NDArray[np.bool_]) -> Doubles:
    """Area under the ROC curve of each row (B, m), ties half; rows with one class only are left out."""
    keep = positive.any(axis=1) & ~positive.all(axis=1)
    out = []
    for score, mark in zip(scores[keep], positive[keep], strict=True):
        negative = np.sort(score[~mark])
        below = np.searchsorted(negative, score[mark], side="left") + np.searchsorted(
            negative, score[mark], side="right"
        )
        out.append(below.mean() / (2 * len(negative)))
    return np.array(out)


def _ndcg(scores: Doubles, wanted: npt.NDArray[np.bool_]) -> Doubles:
    """Binary NDCG@10 of each row (B, m) that wants anything."""
    keep = wanted.any(axis=1)
    scores, wanted = scores[keep], wanted[keep]
    k = min(_TOP, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1), axis=1)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discount)[np.minimum(wanted.sum(axis=1), k) - 1]
    gained: Doubles = (np.take_along_axis(wanted, top, axis=1) * discount).sum(axis=1) / best
    return gained


def _marked(rows: int, columns: int, row: Ints, column: Ints) -> npt.NDArray[np.bool_]:
    out = np.zeros((rows, columns), dtype=bool)
    out[row, column] = True
    return out


def _mean(parts: list[Doubles]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else 0.0
