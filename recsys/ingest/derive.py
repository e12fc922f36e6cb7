"""What a data set is made of, learned from itself: its taxonomy, and the neighborhoods of its cities."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.ingest.mapping import Mapping
from recsys.ingest.read import NAMES
from recsys.taxonomy import OTHER, UNKNOWN
from recsys.workbench import Workbench

_PER_AREA: Final = 40  # places that make a neighbourhood, where coordinates must say what one is
_MOST_AREAS: Final = 30
_ROUNDS: Final = 25  # of k-means


def make_taxonomy(bench: Workbench, mapping: Mapping) -> dict[str, Any]:
    """Tags are the categories as given, the rarest in one; categories the coarser ones, or the most frequent tags.

    Makes `tag_of` (name, tag, grp): what a category as given counts as.
    """
    found = bench.rows(
        f"WITH told AS (SELECT source, place, unnest({NAMES}) AS category, grp FROM places), "
        f"seen AS (SELECT source, place, unnest({NAMES}) AS category FROM "
        "  (SELECT DISTINCT source, place, category FROM events)), "
        "every AS (SELECT source, place, category FROM told UNION SELECT source, place, category FROM seen) "
        "SELECT category AS name, count(*) AS n, "
        "(SELECT mode(t.grp) FROM told t WHERE t.category = every.category) AS grp FROM every "
        "GROUP BY category ORDER BY n DESC, name"
    )
    kept = found[: mapping.max_tags - 1] if len(found) >= mapping.max_tags else found
    groups = list(dict.fromkeys(f["grp"] for f in kept if f["grp"])) or [f["name"] for f in kept]
    groups = groups[: mapping.max_groups - 1] if len(groups) >= mapping.max_groups else groups
    tags = [f["name"] for f in kept]
    rest = OTHER if len(found) > len(kept) else UNKNOWN  # places without a category share the bucket of the rest
    # a name of the data's own that happens to be ours
    tags = [f"{name} (given)" if name in (OTHER, UNKNOWN) else name for name in tags] + [rest]
    categories = [f"{name} (given)" if name in (OTHER, UNKNOWN) else name for name in groups] + [rest]
    of = [groups.index(c) if (c := f["grp"] or f["name"]) in groups else len(groups) for f in kept]
    of.append(len(groups))
    rows = [{"name": f["name"], "tag": min(i, len(kept))} for i, f in enumerate(found)]
    bench.take("tag_of", pa.Table.from_pylist(rows, schema=pa.schema({"name": pa.string(), "tag": pa.int32()})))
    bench.take("grp_of", pa.table({"tag": pa.array(range(len(tags)), pa.int32()), "grp": pa.array(of, pa.int32())}))
    return {"categories": categories, "tags": tags, "tag_category": of, "vibes": ["any"]}


def make_areas(bench: Workbench) -> int:
    """Make `area_of` (id, area, name) of places: as given, else by coordinates, else one a city; return the most."""
    bench.run(
        "CREATE TABLE spot AS SELECT o.id, o.city, o.city_name, any_value(p.neighborhood) AS given, "
        "coalesce(any_value(p.latitude), avg(e.latitude)) AS lat, "
        "coalesce(any_value(p.longitude), avg(e.longitude)) AS lon "
        "FROM place_of o LEFT JOIN places p USING (source, place) LEFT JOIN ("
        "  SELECT source, place, median(latitude) AS latitude, median(longitude) AS longitude FROM events "
        "  WHERE isfinite(latitude) AND isfinite(longitude) GROUP BY ALL) e USING (source, place) GROUP BY ALL"
    )
    parts = []
    for city in bench.rows("SELECT DISTINCT city, city_name FROM spot ORDER BY city"):
        here = bench.rows(f"SELECT id, given, lat, lon FROM spot WHERE city = {city['city']} ORDER BY id")
        if any(h["given"] for h in here):
            names = sorted({h["given"] or UNKNOWN for h in here})
            area = [names.index(h["given"] or UNKNOWN) for h in here]
        elif (located := [h for h in here if h["lat"] is not None and h["lon"] is not None]) and len(located) >= 2:
            spots = np.array([[h["lat"], h["lon"]] for h in located])
            label = dict(zip((h["id"] for h in located), clustered(spots).tolist(), strict=True))
            most = max(label.values()) + 1
            area = [label.get(h["id"], most) for h in here]
            names = [f"{city['city_name']} {i + 1}" for i in range(max(area) + 1)]
        else:
            names, area = [city["city_name"]], [0] * len(here)
        parts += [{"id": h["id"], "area": a, "name": names[a]} for h, a in zip(here, area, strict=True)]
    bench.take("area_of", pa.Table.from_pylist(parts))
    return int(bench.one("SELECT max(area) + 1 FROM area_of"))


def clustered(spots: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """k-means (Lloyd, 1982) of positions (n, 2), degrees, from far-apart beginnings: (n,) clusters, largest first."""
    scaled = spots * np.array([1.0, np.cos(np.radians(spots[:, 0].mean()))])
    k = int(np.clip(len(spots) // _PER_AREA, 1, _MOST_AREAS))
    centers = scaled[:1]
    nearest = ((scaled - centers[0]) ** 2).sum(axis=1)
    for _ in range(k - 1):
        centers = np.concatenate([centers, scaled[nearest.argmax()][None]])
        nearest = np.minimum(nearest, ((scaled - centers[-1]) ** 2).sum(axis=1))
    label = np.zeros(len(scaled), dtype=np.int64)
    for _ in range(_ROUNDS):
        label = ((scaled[:, None, :] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
        counts = np.bincount(label, minlength=len(centers))
        sums = np.stack([np.bincount(label, scaled[:, i], len(centers)) for i in range(2)], axis=1)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
    rank = np.argsort(np.argsort(-np.bincount(label, minlength=len(centers)), kind="stable"))
    return np.asarray(rank[label])
