import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.constants import SLOT_BY_DAY_AND_TIME, TIME_OF_DAY_BY_HOUR
from recsys.errors import DataError, NotReady
from recsys.lake import Lake
from recsys.schemas import TABLES, implicit_rating
from recsys.world import WorldConfig, generate
from recsys.world.figures import row_auc
from recsys.world.interactions import DAY_US, HOUR_US, affinity, engage, slots
from recsys.world.scoring import SLOT_FIT, Tastes, alive
from recsys.world.truth import Truth, friend_probabilities

CONFIG = WorldConfig(users=520, places=400, seed=7, cities=2)


@pytest.fixture(scope="module")
def landing(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    generate(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def truth(landing) -> Truth:
    return Truth.open(landing)


@pytest.fixture(scope="module")
def events(landing) -> dict[str, np.ndarray]:
    table = pq.read_table(landing / "interactions.parquet")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("user_id", "place_id", "attended")}
    return columns | {"moment": table["timestamp"].cast("int64").to_numpy()}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def test_it_is_read_back_as_it_was_made(truth):
    assert truth.config.source() == CONFIG.source()
    assert WorldConfig.from_dict(CONFIG.to_dict()).numbers == CONFIG.numbers
    weighted = WorldConfig(users=9, places=9, cities=2, city_weights=(0.5, 0.5), preset="seed")
    assert WorldConfig.from_dict(weighted.to_dict()).source() == weighted.source()


@pytest.mark.parametrize("preset", ["city", "seed"])
def test_utility_is_the_formula_worked_by_hand(preset):
    config = WorldConfig(preset=preset, users=40, places=60, seed=3, cities=2)
    truth, n = Truth.of(config), config.numbers
    users, places = truth.users, truth.places
    moment = config.start_us + 60 * DAY_US + 20 * HOUR_US  # day 60 is a Friday of the third season
    slot = SLOT_BY_DAY_AND_TIME[0][TIME_OF_DAY_BY_HOUR[20]]
    for u in range(0, 40, 9):
        for p in range(0, 60, 7):
            fine, cat = users.fine_pref[u].astype(float), users.cat_pref[u].astype(float)
            if preset == "city":
                joined = (users.joined[u] - config.start_us) // (28 * DAY_US)  # tastes drift from then on
                turned = 0.4 * (2 - joined) / 2
                fine = (1 - turned) * fine + turned * users.later_fine[u]
                cat = (1 - turned) * cat + turned * users.later_cat[u]
            score = (
                n.w_interest * unit(fine) @ unit(places.tags[p].astype(float))
                + n.w_category * cat @ places.categories[p]
            )
            if users.city[u] == places.city[p] or preset == "seed":  # the seed compares neighbourhoods of any city
                score += n.w_location * users.area[u, places.neighborhood[p]]
            score += n.w_popularity * np.log1p(places.popularity[p]) / 10
            if preset == "city":
                score -= n.price_aversion * max(0.0, places.price_band[p] - users.means[u])
                life = alive(places, np.array([p]), np.array([moment]))[0]
                expected = score / n.temperature + n.slot_weight * SLOT_FIT[slot, places.slot[p]]
                expected += np.log(life) if life > 0 else -np.inf
            else:
                expected = max(score, 0.0)
            got = truth.utility(np.array([u]), np.array([p]), np.array([moment]))[0]
            assert got == pytest.approx(expected, abs=2e-4)


def test_shares_are_the_softmax_of_utility_over_the_city(truth):
    city = truth.cities[0]
    user = np.flatnonzero(truth.users.city == 0)[5]
    week = CONFIG.start_us + 9 * 7 * DAY_US
    moment = week + 4 * DAY_US + 20 * HOUR_US
    slot = int(slots(np.array([moment]))[0])
    n = len(city.ids)
    life = alive(truth.places, city.ids, np.full(n, moment)).astype(float)
    there = np.flatnonzero(life > 0)
    utility = truth.utility(np.full(len(there), user), city.ids[there], np.full(len(there), moment))
    # the life of places enters as a chance to come about, not into who is chosen
    mass = np.exp(utility - np.log(life[there]))
    midnight = moment - moment % DAY_US
    got = truth.shares(np.array([user]), city, (midnight, midnight + DAY_US), slot=slot)[0, there]
    noon = alive(truth.places, city.ids[there], np.full(len(there), midnight + DAY_US // 2)).astype(float)
    ratio = got / (mass * noon)
    assert ratio.std() / ratio.mean() < 1e-3


def test_shares_whenever_are_the_mean_of_shares_by_slot(truth):
    city, users = truth.cities[1], np.flatnonzero(truth.users.city == 1)[:7]
    weights = np.zeros((len(users), 6))
    for cell in range(8):
        weights[:, SLOT_BY_DAY_AND_TIME[cell // 4][cell % 4]] += truth.users.rhythm[users, cell]
    by_slot = np.stack([truth.shares(users, city, slot=s) for s in range(6)], axis=1)
    assert truth.shares(users, city) == pytest.approx((weights[:, :, None] * by_slot).sum(axis=1), rel=1e-6)
    assert (truth.shares(users, city).sum(axis=1) <= 1 + 1e-9).all()


def test_the_oracle_knows_better_than_popularity_and_than_taste_alone(truth, events):
    visits = np.bincount(events["place_id"], minlength=CONFIG.places)
    oracle, popular, liked = [], [], []
    for city in truth.cities:
        users = np.flatnonzero(truth.users.city == city.number)[:150]
        went = np.zeros((CONFIG.users, CONFIG.places), dtype=bool)
        went[events["user_id"], events["place_id"]] = True
        went = went[np.ix_(users, city.ids)]
        oracle.append(row_auc(truth.shares(users, city), went))
        liked.append(row_auc(truth.shares(users, city, likings=True), went))
        popular.append(row_auc(np.broadcast_to(visits[city.ids].astype(float), went.shape), went))
    oracle, popular, liked = (np.concatenate(a).mean() for a in (oracle, popular, liked))
    assert oracle > popular + 0.05
    assert liked > oracle + 0.005, "lasting likings are what the formula does not say"


def test_likely_positives_are_what_a_simulation_finds(truth):
    city, users = truth.cities[0], np.flatnonzero(truth.users.city == 0)[:4]
    liking = city.taste(Tastes.of(CONFIG, truth.users, users, 0), CONFIG.numbers)
    found = truth._likely_positive(users, city, liking)
    liked = affinity(CONFIG, liking, np.full(liking.shape, 0.75))
    rng, rounds = np.random.default_rng(0), 400
    user = np.repeat(np.tile(users[:, None], len(city.ids)).ravel(), rounds)
    place = np.repeat(np.tile(city.ids, len(users)), rounds)
    done = engage(CONFIG, truth.users, truth.places, user, place, np.repeat(liked.ravel(), rounds), rng)
    simulated = (implicit_rating(*done) >= 3.5).reshape(-1, rounds).mean(axis=1)
    variance = found.ravel() * (1 - found.ravel()) / rounds
    assert (np.abs(simulated - found.ravel()) < 5 * np.sqrt(variance) + 4 / rounds).all()
    assert abs((simulated - found.ravel()).sum()) < 4 * np.sqrt(variance.sum()), "no bias either"
    assert found.max() > 2 * found.min()


def test_tastes_drift_and_prices_repel_in_the_events(truth, events):
    users, places = truth.users, truth.places
    user, place, moment = events["user_id"], events["place_id"], events["moment"]
    tags = places.tags[place] / np.linalg.norm(places.tags[place], axis=1, keepdims=True)

    def likeness(fine: np.ndarray, when: np.ndarray) -> float:
        rows = fine[user[when]] / np.linalg.norm(fine[user[when]], axis=1, keepdims=True)
        return float((rows * tags[when]).sum(axis=1).mean())

    early, late = moment < CONFIG.start_us + 28 * DAY_US, moment >= CONFIG.start_us + 56 * DAY_US
    assert likeness(users.later_fine, late) > likeness(users.later_fine, early) + 0.02
    assert likeness(users.fine_pref, late) < likeness(users.fine_pref, early) - 0.02
    poor, rich = users.means[user] < 1, users.means[user] > 3
    assert places.price_band[place][poor].mean() < places.price_band[place][rich].mean() - 0.05


def test_friend_labels_follow_their_true_probabilities(landing):
    labels, known = pq.read_table(landing / "friend_labels.parquet"), friend_probabilities(landing)
    for name in ("user_u", "user_v"):
        assert np.array_equal(labels[name].to_numpy(), known[name])
    assert np.array_equal(labels["label_compat"].to_numpy(), known["p_compat"])
    attend, p = labels["label_attend"].to_numpy(), known["p_attend"]
    assert (p[known["p_compat"] == 0] == 0).all()
    assert abs(attend.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_what_is_not_known_is_said(landing, tmp_path):
    for ask in (Truth.open, friend_probabilities):
        with pytest.raises(NotReady, match="no truth is known of these data"):
            ask(tmp_path)
    shutil.copytree(landing / "truth", tmp_path / "truth")
    path = tmp_path / "truth" / "world.json"
    path.write_text(path.read_text().replace('"generator": ', '"generator": 9'))
    with pytest.raises(DataError, match=r"world.json: this is version \d+ of the generator \(got 9\d+\).*--force"):
        Truth.open(tmp_path)


def test_no_query_of_the_lake_sees_the_truth(landing, tmp_path):
    shutil.copytree(landing, tmp_path / "landing")
    shutil.copytree(landing, tmp_path / "lake")
    with Lake(tmp_path) as lake:
        names = set(lake.query("SELECT view_name FROM duckdb_views() WHERE NOT internal")["view_name"].to_pylist())
        assert names == set(TABLES)
        secret = {"p_compat", "p_attend", "means", "rhythm", "later_fine"}
        columns = lake.query("SELECT column_name FROM duckdb_columns() WHERE NOT internal")["column_name"].to_pylist()
        assert not secret & set(columns)
        with pytest.raises(DataError):
            lake.query(f"SELECT * FROM read_parquet('{tmp_path / 'landing' / 'truth' / 'friend_labels.parquet'}')")


def test_likings_of_some_places_and_the_mean_of_the_others(truth):
    city, users, numbers = truth.cities[0], np.flatnonzero(truth.users.city == 0)[:5], CONFIG.numbers
    window = CONFIG.end_us - DAY_US, CONFIG.end_us
    known = np.random.default_rng(3).random((len(users), len(city.ids))) < 0.3
    none, every, some = (truth.shares(users, city, window, slot=2, likings=x) for x in (False, True, known))
    assert truth.shares(users, city, window, slot=2, likings=np.ones_like(known)) == pytest.approx(every, rel=1e-6)
    usual = numbers.noise**2 / (2 * numbers.temperature)
    there = none[0] > 0
    expected = np.where(known, city.likings(CONFIG, users), usual)[:, there] / numbers.temperature
    apart = np.log(some[:, there] / none[:, there]) - expected
    assert np.ptp(apart, axis=1).max() < 1e-3, "but for what makes shares of them, which is each user's own"
    drawn = np.random.default_rng(4).normal(0, numbers.noise, 400_000)
    assert np.exp(drawn / numbers.temperature).mean() == pytest.approx(np.exp(usual / numbers.temperature), rel=0.02)


def test_likings_do_not_depend_on_who_else_is_drawn(truth):
    city, users = truth.cities[0], np.array([3, 300, 511])
    together = city.likings(CONFIG, users)
    assert np.array_equal(together[[1]], city.likings(CONFIG, users[[1]]))
    assert np.array_equal(together[::-1], city.likings(CONFIG, users[::-1]))
    assert together.std() == pytest.approx(CONFIG.numbers.noise, rel=0.1)
    other = replace(city, number=1).likings(CONFIG, users)
    assert abs(np.corrcoef(together.ravel(), other.ravel())[0, 1]) < 0.1
