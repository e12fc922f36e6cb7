// A place and a person as cards: what, how well, why, and what can be done about it.

import { html, useState } from "../vendor/htm-preact.js";
import { post } from "./api.js";
import { Meter, Name, Price, Problem, Source, number, useLoad, words } from "./ui.js";

const ACTIONS = [
  ["like", "Like"],
  ["save", "Save"],
  ["attend", "I went"],
];
const OUTCOMES = {
  recommended: "in the list",
  ranked_below: "a candidate, ranked below the list",
  not_retrieved: "not among the candidates",
  dropped: "kept out by a rule",
};

/** What moved a score, as log-odds to the left and right of nothing. */
export function Parts({ parts }) {
  const rows = Object.entries(parts);
  const most = Math.max(0.5, ...rows.map(([, v]) => Math.abs(v)));
  return html`<table class="parts">
    <caption>What the score would lose without it, log-odds</caption>
    <tbody>
      ${rows.map(
        ([name, value]) => html`<tr key=${name}>
          <th scope="row">${words(name)}</th>
          <td class="part-bar" aria-hidden="true"><span class=${value < 0 ? "less" : "more"} style=${{ width: `${(50 * Math.abs(value)) / most}%` }}></span></td>
          <td class="num">${value > 0 ? "+" : ""}${number(value, 2)}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

/** The whole trace of one place or person: rules, retrieval, rank. */
function Trace({ body }) {
  const { data, call, error } = useLoad(() => post("/explain", body), JSON.stringify(body));
  if (error) return html`<${Problem} error=${error} />`;
  if (!data) return html`<p class="muted">…</p>`;
  return html`<div class="trace">
    <p><strong>${OUTCOMES[data.outcome]}</strong>${data.rank ? html`, rank <span class="num">${data.rank} of ${data.candidates}</span>` : ""}</p>
    ${data.broken.map((b) => html`<p key=${b.rule}><${Name} text=${b.said} most=${300} /></p>`)}
    <table class="plain">
      <caption>Where each source had it</caption>
      <tbody>
        ${data.retrieval.map((s) => html`<tr key=${s.source}><th scope="row">${words(s.source)}</th><td class="num">${s.rank === null ? "–" : `${number(s.rank)} of ${number(s.of)}`}</td></tr>`)}
      </tbody>
    </table>
    ${Object.keys(data.score_parts).length ? html`<${Parts} parts=${data.score_parts} />` : null}
    <${Source} call=${call} />
  </div>`;
}

function Why({ name, parts, body }) {
  const [open, set] = useState(false);
  return html`<details class="why" onToggle=${(e) => set(e.target.open)}>
    <summary>Why<span class="sr"> ${name}</span></summary>
    ${open ? html`${body ? html`<${Trace} body=${body} />` : parts ? html`<${Parts} parts=${parts} />` : null}` : null}
  </details>`;
}

/** `alone`: the other list stands beside it, so what it has not is only here. */
export function Moved({ move, alone }) {
  if (!move) return null;
  if (move.was === null) return html`<span class="moved new">${alone ? "only here" : "new"}</span>`;
  if (move.was === move.now) return null;
  const up = move.was > move.now;
  return html`<span class=${`moved ${up ? "up" : "down"}`} title=${`was ${move.was}`}><span aria-hidden="true">${up ? "▲" : "▼"}${Math.abs(move.was - move.now)}</span><span class="sr">${up ? "up" : "down"} from ${move.was}</span></span>`;
}

export function PlaceCard({ item, rank, place, slots, move, active, onActive, onEvent, onCompany, explain, done, note }) {
  return html`<li class=${`card ${active ? "active" : ""}`} id=${`place-${item.place_id}`} onMouseEnter=${() => onActive?.(item.place_id)} onMouseLeave=${() => onActive?.(null)}>
    <div class="card-top">
      <span class="rank num">${rank}</span>
      <div class="grow">
        <h3><${Name} text=${item.name} most=${80} /></h3>
        <p class="muted facts">
          <${Name} text=${item.neighborhood_name} most=${60} />
          ${place
            ? html`<span>${place.categories.map(words).join(", ")}</span><${Price} band=${place.price_band} /><span>${words(slots[place.time_slot] ?? "")}</span>`
            : null}
        </p>
      </div>
      <div class="score"><span class="num big">${number(item.score ?? 0, 3)}</span><${Moved} move=${move} /></div>
    </div>
    ${item.explanations?.length ? html`<ul class="reasons">${item.explanations.map((said, i) => html`<li key=${i}><${Name} text=${said} most=${240} /></li>`)}</ul>` : null}
    <p class="muted tiny facts">
      ${place?.tags.length ? html`<span>${place.tags.slice(0, 4).map(words).join(" · ")}</span>` : null}
      ${place && place.visitors !== null ? html`<span class="num">${number(place.visitors)} visitors</span>` : null}
    </p>
    ${item.sources?.length ? html`<p class="muted tiny facts">Found by ${item.sources.map(words).join(", ")}</p>` : null}
    <div class="actions">
      ${onEvent
        ? ACTIONS.map(([kind, said]) => html`<button key=${kind} type="button" class=${`quiet small ${done?.has(kind) ? "done" : ""}`} onClick=${() => onEvent(item, kind)}>${said}<span class="sr"> ${item.name.slice(0, 80)}</span></button>`)
        : null}
      ${onCompany ? html`<button type="button" class="quiet small" onClick=${() => onCompany(item)}>Who would come?<span class="sr"> ${item.name.slice(0, 80)}</span></button>` : null}
      <${Why} name=${item.name.slice(0, 80)} parts=${item.score_parts} body=${explain} />
    </div>
    ${note ? html`<p class="note num">${note}</p>` : null}
  </li>`;
}

export function PersonCard({ item, rank, onInvite, invited, onVisit, explain }) {
  const name = item.name || `user ${item.user_id}`;
  return html`<li class="card person">
    <div class="card-top">
      <span class="rank num">${rank}</span>
      <div class="grow"><h3><${Name} text=${name} most=${60} /></h3></div>
      <div class="score"><span class="num big">${number(item.combined_score, 3)}</span></div>
    </div>
    <div class="meters">
      <${Meter} label="Compatible" value=${item.compat_score} strong />
      <${Meter} label="Would come" value=${item.attend_prob} />
    </div>
    ${item.explanations.length ? html`<ul class="reasons">${item.explanations.map((said, i) => html`<li key=${i}><${Name} text=${said} most=${240} /></li>`)}</ul>` : null}
    <div class="actions">
      <button type="button" class="quiet small" disabled=${invited} onClick=${() => onInvite(item)}>${invited ? "In the group" : "Add to group"}<span class="sr"> ${name.slice(0, 80)}</span></button>
      <button type="button" class="quiet small" onClick=${() => onVisit(item)}>See as<span class="sr"> ${name.slice(0, 80)}</span></button>
      <${Why} name=${name.slice(0, 80)} body=${explain} />
    </div>
  </li>`;
}
