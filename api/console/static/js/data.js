// Data: ready questions to the lake, their SQL, the answer as a table and, where it helps, as a chart.

import { html } from "../vendor/htm-preact.js";
import { get } from "./api.js";
import { Bars, Lines } from "./charts.js";
import { Copy, Name, Panel, Problem, Source, number, useLoad } from "./ui.js";

const MOMENT = /^\d{4}-\d{2}-\d{2}/;
const plain = (cell) => (cell === null ? "" : typeof cell === "number" ? (Number.isInteger(cell) ? number(cell) : number(cell, 3)) : typeof cell === "string" && MOMENT.test(cell) ? cell.replace("T", " ").slice(0, 19) : String(cell));

export function Data({ at, go }) {
  const list = useLoad(() => get("/console/queries"), "queries");
  const queries = list.data?.queries ?? [];
  const chosen = queries.find((q) => q.name === at.q) ?? queries[0];
  const answer = useLoad(() => get(`/console/queries/${chosen.name}`), chosen ? chosen.name : null);
  return html`<div class="data">
    <nav class="box questions" aria-label="Questions"><h2>Ask the lake</h2><${Problem} error=${list.error} />
      <ul>${queries.map((q) => html`<li key=${q.name}><a href=${`#/data?q=${q.name}`} aria-current=${q === chosen ? "page" : undefined}>${q.title}</a></li>`)}</ul>
      <p class="muted tiny">From <code>docs/queries.md</code>, run read-only by DuckDB in a process of its own. For your own questions: <code>recsys sql</code>.</p>
    </nav>
    ${chosen ? html`<${Panel} id="answer-title" title=${chosen.title} busy=${answer.loading} source=${html`<${Source} call=${answer.call} />`}>
      <div class="code sql"><pre tabindex="0" aria-label="SQL">${chosen.sql}</pre><${Copy} text=${chosen.sql} what="Copy SQL" /></div>
      <div class="row wrap"><${Source} text=${`recsys sql "${chosen.sql.replaceAll('"', '\\"').replaceAll("$", "\\$").replaceAll("`", "\\`")}"`} label="recsys sql" /></div>
      <${Problem} error=${answer.error} onRetry=${answer.reload} />
      ${answer.loading && !answer.data ? html`<p class="muted">Asking…</p>` : null}
      ${answer.data ? html`<${Answer} data=${answer.data} chart=${chosen.chart} title=${chosen.title} />` : null}
    <//>` : null}
  </div>`;
}

function Answer({ data, chart, title }) {
  if (data.missing) return html`<p class="empty">Nothing to show: <${Name} text=${data.missing} most=${300} /></p>`;
  if (!data.rows.length) return html`<p class="empty">No rows.</p>`;
  const at = chart ? [data.columns.indexOf(chart.x), data.columns.indexOf(chart.y)] : [-1, -1];
  const drawn = at.every((i) => i >= 0) && data.rows.length > 1;
  const numeric = data.columns.map((_, i) => data.rows.every((r) => r[i] === null || typeof r[i] === "number"));
  const points = drawn ? data.rows.map((r) => [plain(r[at[0]]), r[at[1]]]) : [];
  const inTime = chart?.kind === "line" && points.length && points[0][0] > points.at(-1)[0] ? points.toReversed() : points;
  return html`
    ${drawn && chart.kind === "bar" ? html`<${Bars} rows=${points.slice(0, 20)} label=${title} />` : null}
    ${drawn && chart.kind === "line" ? html`<figure><${Lines} series=${[{ name: chart.y, points: inTime.map((p) => p[1]) }]} label=${`${chart.y} by ${chart.x}`} ticks=${[inTime[0][0].slice(0, 10), inTime.at(-1)[0].slice(0, 10)]} digits=${inTime.every((p) => Number.isInteger(p[1])) ? 0 : 2} /><figcaption class="muted tiny">${chart.y.replaceAll("_", " ")}</figcaption></figure>` : null}
    <div class="scroll" tabindex="0" role="group" aria-label="Answer as a table"><table class="answer-table">
      <thead><tr>${data.columns.map((c, i) => html`<th key=${c} scope="col" class=${numeric[i] ? "num" : ""}><${Name} text=${c} most=${60} /></th>`)}</tr></thead>
      <tbody>${data.rows.map((row, i) => html`<tr key=${i}>${row.map((cell, k) => html`<td key=${k} class=${numeric[k] ? "num" : ""}><${Name} text=${plain(cell)} most=${120} /></td>`)}</tr>`)}</tbody>
    </table></div>
    <p class="muted tiny num">${number(data.total)} ${data.total === 1 ? "row" : "rows"}${data.total > data.rows.length ? `, the first ${data.rows.length} shown` : ""}</p>`;
}
