// A city's neighborhoods as cells around their middles (Voronoi, by half-planes), and places as numbered dots.

import { html, useMemo } from "../vendor/htm-preact.js";
import { Name } from "./ui.js";

const WIDTH = 640;
const HEIGHT = 400;
const PAD = 70;
const CORNERS = 40; // of the disc that a cell is cut from

/** Sites for neighborhoods whose place on earth is not known: a sunflower, in the order of their numbers. */
const sunflower = (n) =>
  Array.from({ length: n }, (_, i) => {
    const r = Math.sqrt(i + 0.4);
    const turn = i * Math.PI * (3 - Math.sqrt(5));
    return [r * Math.cos(turn), r * Math.sin(turn)];
  });

/** What of a polygon is nearer to `a` than to `b`. */
function nearer(polygon, a, b) {
  const [mx, my] = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const side = ([x, y]) => (x - mx) * dx + (y - my) * dy;
  const out = [];
  polygon.forEach((p, i) => {
    const q = polygon[(i + 1) % polygon.length];
    const [sp, sq] = [side(p), side(q)];
    if (sp <= 0) out.push(p);
    if (sp < 0 !== sq < 0 && sp !== sq) {
      const t = sp / (sp - sq);
      out.push([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]);
    }
  });
  return out;
}

/** Cells and a projection of a city. */
export function layOut(areas) {
  const located = areas.length > 0 && areas.every((a) => a.latitude !== null);
  const squeeze = located ? Math.cos((areas[0].latitude * Math.PI) / 180) : 1;
  const flat = (longitude, latitude) => [longitude * squeeze, -latitude];
  const raw = located ? areas.map((a) => flat(a.longitude, a.latitude)) : sunflower(areas.length);
  const span = (axis) => [Math.min(...raw.map((p) => p[axis])), Math.max(...raw.map((p) => p[axis]))];
  const [[x0, x1], [y0, y1]] = [span(0), span(1)];
  // a city lies across as well as along: turned where that fills the frame better
  const turned = x1 - x0 < (y1 - y0) * 0.8;
  const [w, h] = turned ? [y1 - y0, x1 - x0] : [x1 - x0, y1 - y0];
  const scale = Math.min((WIDTH - 2 * PAD) / (w || 1), (HEIGHT - 2 * PAD) / (h || 1));
  const place = ([x, y]) => {
    const [u, v] = turned ? [y - (y0 + y1) / 2, x - (x0 + x1) / 2] : [x - (x0 + x1) / 2, y - (y0 + y1) / 2];
    return [WIDTH / 2 + u * scale, HEIGHT / 2 + v * scale];
  };
  const sites = raw.map(place);
  const gaps = sites.map((a, i) => Math.min(...sites.map((b, j) => (i === j ? 1e9 : Math.hypot(a[0] - b[0], a[1] - b[1])))));
  const radius = areas.length > 1 ? 1.15 * gaps.toSorted((a, b) => a - b)[gaps.length >> 1] : HEIGHT / 3;
  const cells = sites.map((site, i) => {
    let polygon = Array.from({ length: CORNERS }, (_, k) => {
      const turn = (2 * Math.PI * k) / CORNERS;
      return [site[0] + radius * Math.cos(turn), site[1] + radius * Math.sin(turn)];
    });
    sites.forEach((other, j) => {
      if (i !== j && polygon.length) polygon = nearer(polygon, site, other);
    });
    return { ...areas[i], site, points: polygon.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ") };
  });
  const spot = (item, at) => {
    if (located && item.latitude !== null && item.latitude !== undefined) return place(flat(item.longitude, item.latitude));
    const cell = cells.find((c) => c.neighborhood_id === item.neighborhood_id);
    if (!cell) return null;
    const turn = at * 2.4; // the golden angle, so that those of one cell stand apart
    return [cell.site[0] + 14 * Math.cos(turn), cell.site[1] + 14 * Math.sin(turn)];
  };
  const corners = cells.flatMap((c) => c.points.split(" ").map((p) => p.split(",").map(Number)));
  const [left, top] = [Math.min(...corners.map((c) => c[0])), Math.min(...corners.map((c) => c[1]))];
  const [right, bottom] = [Math.max(...corners.map((c) => c[0])), Math.max(...corners.map((c) => c[1]))];
  const frame = corners.length ? [left - 8, top - 8, right - left + 16, bottom - top + 16] : [0, 0, WIDTH, HEIGHT];
  return { cells, spot, located, frame: frame.map((v) => v.toFixed(0)).join(" ") };
}

/** Where a cell's name stands: in its middle, or above or below, wherever fewest dots cover it. */
function nameAt([x, y], text, dots) {
  const half = 3 * Math.min(text.length, 18);
  const covers = (dy) => dots.filter((d) => d && Math.abs(d[0] - x) < half + 9 && Math.abs(d[1] - (y + dy - 3)) < 15).length;
  return [0, 17, -17, 28, -28].reduce((best, dy) => (covers(dy) < covers(best) ? dy : best), 0);
}

/** Props: `city` (GET /console/cities/…), `marks` [{place_id, …place}], `home` (a neighborhood's name), `active`, `onActive`, `onPick`. */
export function CityMap({ city, marks, home, active, onActive, onPick, chosen, onArea }) {
  const { cells, spot, located, frame } = useMemo(() => layOut(city.neighborhoods), [city]);
  const dots = marks.map((mark, i) => spot(mark, i));
  const count = new Map();
  for (const mark of marks) count.set(mark.neighborhood_id, (count.get(mark.neighborhood_id) ?? 0) + 1);
  const most = Math.max(1, ...count.values());
  const busiest = [...count].sort((a, b) => b[1] - a[1]).map(([id]) => cells.find((c) => c.neighborhood_id === id)?.name);
  const said = `Map of ${city.city_name.slice(0, 100)}, ${cells.length} neighborhoods. `
    + (marks.length ? `The listed places lie in ${busiest.filter(Boolean).slice(0, 3).map((n) => n.slice(0, 60)).join(", ")}.` : "");
  return html`<figure class="map">
    <svg viewBox=${frame} role="img" aria-label=${said}>
      ${cells.map(
        (cell) => html`<g key=${cell.neighborhood_id} class=${`cell ${chosen === cell.neighborhood_id ? "chosen" : ""}`} onClick=${() => onArea?.(cell.neighborhood_id)}>
          <polygon points=${cell.points} />
          <polygon class="heat" points=${cell.points} style=${{ opacity: (0.32 * (count.get(cell.neighborhood_id) ?? 0)) / most }} />
        </g>`,
      )}
      ${cells.map(
        (cell) => html`<text key=${cell.neighborhood_id} class=${`area ${cell.name === home ? "home" : ""}`} x=${cell.site[0]} y=${cell.site[1] + nameAt(cell.site, cell.name, dots)} text-anchor="middle">
          ${cell.name.length > 18 ? `${cell.name.slice(0, 17)}…` : cell.name}${cell.name === home ? " ⌂" : ""}
        </text>`,
      )}
      ${marks.map((mark, i) => {
        const at = dots[i];
        if (!at) return null;
        return html`<g key=${mark.place_id} class=${`dot ${active === mark.place_id ? "active" : ""}`} transform=${`translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`}
          onMouseEnter=${() => onActive?.(mark.place_id)} onMouseLeave=${() => onActive?.(null)} onClick=${() => onPick?.(mark.place_id)}>
          <circle r=${active === mark.place_id ? 13 : 10} /><text dy="3.6" text-anchor="middle">${mark.rank}</text>
        </g>`;
      })}
    </svg>
    <figcaption class="muted tiny"><${Name} text=${city.city_name} /> · ${cells.length} neighborhoods${located ? "" : " · their positions are not known, so this is a diagram"}</figcaption>
  </figure>`;
}
