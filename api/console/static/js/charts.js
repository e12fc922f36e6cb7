// Charts of few numbers, drawn by hand: bars across, and lines over steps. The table beside them holds the figures.

import { html } from "../vendor/htm-preact.js";
import { Name, number } from "./ui.js";

export function Bars({ rows, label }) {
  const most = Math.max(...rows.map(([, v]) => v), 0) || 1;
  return html`<div class="bars" role="group" aria-label=${label}>
    ${rows.map(([name, value], i) => html`<div key=${i} class="taste"><span><${Name} text=${name} most=${28} /></span><span class="track" aria-hidden="true"><span class="fill" style=${{ width: `${(100 * Math.max(0, value)) / most}%` }}></span></span><span class="num">${number(value, Number.isInteger(value) ? 0 : 2)}</span></div>`)}
  </div>`;
}

const [W, H, LEFT, BOTTOM] = [640, 190, 46, 20];

/** `series`: [{ name, points: [number] }]; `ticks`: labels of the first and last point. */
export function Lines({ series, label, ticks = [], digits = 2 }) {
  const all = series.flatMap((s) => s.points).filter((v) => v !== null);
  if (!all.length) return null;
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const pad = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  const [bottom, top] = [low - pad, high + pad];
  const n = Math.max(...series.map((s) => s.points.length));
  const x = (i) => LEFT + ((W - LEFT - 10) * i) / Math.max(1, n - 1);
  const y = (v) => 8 + (H - BOTTOM - 12) * (1 - (v - bottom) / (top - bottom));
  return html`<svg class=${`lines-chart ${series.length > 1 ? "many" : ""}`} viewBox=${`0 0 ${W} ${H}`} role="img" aria-label=${`${label}: from ${number(all[0], digits)} to ${number(all.at(-1), digits)}, between ${number(low, digits)} and ${number(high, digits)}`}>
    ${[low, (low + high) / 2, high].map((v, i) => html`<g key=${i}><line x1=${LEFT} x2=${W - 10} y1=${y(v)} y2=${y(v)} class="grid" /><text x=${LEFT - 7} y=${y(v) + 3.5} text-anchor="end">${number(v, digits)}</text></g>`)}
    ${series.map((s, k) => html`<g key=${s.name} class=${`series s${k}`}>
      <polyline points=${s.points.map((v, i) => (v === null ? "" : `${x(i).toFixed(1)},${y(v).toFixed(1)}`)).join(" ")} />
      ${s.points.map((v, i) => (v === null ? null : html`<circle key=${i} cx=${x(i)} cy=${y(v)} r="2.6"><title>${s.name} ${number(v, digits + 1)}</title></circle>`))}
    </g>`)}
    ${ticks.map((t, i) => html`<text key=${i} x=${i ? W - 10 : LEFT} y=${H - 4} text-anchor=${i ? "end" : "start"}>${t}</text>`)}
  </svg>`;
}
