// Compare: two lists for one person side by side, and what moved between them.

import { html, useState, useEffect } from "../vendor/htm-preact.js";
import { compact, get, post } from "./api.js";
import { Moved } from "./cards.js";
import { DAYS, PRICES, TIMES, Where, asked, filtersOf, usePlaces } from "./explore.js";
import { Chips, Choice, Name, Panel, Price, Problem, Slider, Source, number, percent, useLoad, words } from "./ui.js";
import { FindPerson, nameOf } from "./who.js";

const LENGTH = 15;
const list = (text) => (text ? text.split(",").map(Number) : []);

/** One side's settings, of the address: its fields begin with the side's letter. */
function settings(at, side, about) {
  const get_ = (name) => at[`${side}.${name}`];
  const by = get_("by") ?? (side === "a" ? "model" : "popular");
  const day = get_("day") ?? "";
  return {
    side, by, day, time: get_("time") ?? "2", price: get_("price"), kinds: list(get_("kinds")), area: null, explain: "none", top_k: LENGTH,
    diversity: Number(get_("diversity") ?? 0), novelty: Number(get_("novelty") ?? 0), fresh: get_("fresh") === "1",
    slot: day ? about.slot_by_day_and_time[Number(day)][Number(get_("time") ?? 2)] : null,
  };
}

/** What a side asks for. */
function question(one, user, city) {
  if (one.by === "oracle") return { method: "GET", path: `/console/oracle?user_id=${user}${one.slot === null ? "" : `&time_slot=${one.slot}`}` };
  if (one.by === "popular") return { method: "POST", path: "/console/popular", body: compact({ city_id: city, filters: filtersOf(one), top_k: LENGTH }) };
  const body = compact({
    user_id: user, city_id: city, time_slot: one.slot, diversity: one.diversity || null, novelty: one.novelty || null,
    exclude_visited: one.fresh, filters: filtersOf(one), explain: one.explain, top_k: one.top_k,
  });
  return { method: "POST", path: one.by === "model" ? "/recommend/places" : `/console/versions/${one.by}/places`, body };
}

function useSide(one, user, city, home) {
  const asks = question(one, user, city);
  const can = city !== null && (one.by !== "oracle" || city === home);
  return useLoad(() => (asks.body ? post(asks.path, asks.body) : get(asks.path)), can ? JSON.stringify(asks) : null);
}

export function Compare({ at, go, about, taxonomy, degraded }) {
  const { user } = asked({ ...at, made: undefined }, about);
  const person = useLoad(() => get(`/console/users/${user}`), String(user));
  const home = person.data?.user_id === user ? person.data.city_id : null;
  const city = at.city === undefined ? home : Number(at.city);
  const [a, b] = ["a", "b"].map((side) => settings(at, side, about));
  const [left, right] = [useSide(a, user, city, home), useSide(b, user, city, home)];
  const versions = useLoad(() => get("/console/versions"), "versions");
  const [active, setActive] = useState(null);
  const items = [left, right].map((s) => (s.data?.recommendations ?? []).slice(0, LENGTH));
  const details = usePlaces(items.flat().map((i) => i.place_id));
  const rank = items.map((l) => new Map(l.map((item, i) => [item.place_id, i + 1])));
  const both = items[0].filter((i) => rank[1].has(i.place_id)).length;
  const still = items[0].filter((i) => rank[1].get(i.place_id) === rank[0].get(i.place_id)).length;
  useEffect(() => degraded([left.data, right.data, person.data].flatMap((d) => d?.degraded ?? [])), [left.data, right.data, person.data]);
  const ways = [
    ["model", "The model"],
    ["popular", "Popularity"],
    ...(about.synthetic ? [["oracle", "The oracle"]] : []),
    ...about.versions.filter((v) => v !== about.model_version).map((v) => [v, `Version ${v}`]),
  ];
  const tested = versions.data?.versions.find((v) => v.live)?.tested;
  const sides = [a, b].map((one, i) => ({ one, load: [left, right][i], items: items[i], other: rank[1 - i] }));
  return html`<div class="compare">
    <div class="box bar">
      <${FindPerson} id="find" label="Person" placeholder="Name or number" onPick=${(p) => go({ user: p.user_id, city: undefined })} />
      <div class="grow">
        ${person.error ? html`<${Problem} error=${person.error} />` : html`<p class="person-name">${person.data ? html`<${Name} text=${nameOf(person.data)} most=${60} />` : "…"}</p>
        <p class="muted tiny">${person.data ? person.data.tags.slice(0, 5).map((t) => words(t.name)).join(" · ") : ""}</p>`}
      </div>
      <${Where} about=${about} city=${city} go=${go} />
      <p class="agree" role="status">${items[0].length && items[1].length ? html`<span class="num big">${both}</span> of ${items[0].length} in both, <span class="num">${still}</span> at the same rank` : ""}</p>
    </div>
    <div class="sides">
      ${sides.map((s) => html`<${Side} key=${s.one.side} ...${s} ways=${ways} taxonomy=${taxonomy} details=${details} slots=${about.time_slots} at=${at} go=${go} active=${active} onActive=${setActive} away=${home !== null && city !== home} />`)}
    </div>
    ${tested ? html`<${Gain} tested=${tested} />` : null}
  </div>`;
}

function Side({ one, load, items, other, ways, taxonomy, details, slots, at, go, active, onActive, away }) {
  const set = (change) => go(Object.fromEntries(Object.entries(change).map(([k, v]) => [`${one.side}.${k}`, v])));
  const model = one.by !== "popular" && one.by !== "oracle";
  const letter = one.side.toUpperCase();
  const oracle = one.by === "oracle" && load.data;
  return html`<${Panel} id=${`${one.side}-title`} title=${`${letter} · ${Object.fromEntries(ways)[one.by] ?? one.by}`} busy=${load.loading} source=${html`<${Source} call=${load.call} />`}>
    <div class="knobs">
      <label class="field"><span>List ${letter} by</span>
        <select value=${one.by} onChange=${(e) => set({ by: e.target.value })}>${ways.map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select>
      </label>
      <details class="filters"><summary>Settings of ${letter}</summary>
        ${one.by === "popular" ? null : html`<${Choice} label="Day" name=${`${one.side}-day`} options=${DAYS} value=${one.day} onChange=${(day) => set({ day })} />
        <${Choice} label="Time" name=${`${one.side}-time`} options=${TIMES} value=${one.time} disabled=${!one.day} onChange=${(time) => set({ time })} />`}
        ${one.by === "oracle" ? null : html`<${Choice} label="Price up to" name=${`${one.side}-price`} options=${PRICES} value=${one.price ?? ""} onChange=${(price) => set({ price })} />
        <${Chips} label="Only" options=${taxonomy.categories.map((c, i) => [i, words(c)])} chosen=${one.kinds} onToggle=${(c) => set({ kinds: (one.kinds.includes(c) ? one.kinds.filter((k) => k !== c) : [...one.kinds, c]).join() })} />`}
        ${model ? html`<label class="check"><input type="checkbox" checked=${one.fresh} onChange=${(e) => set({ fresh: e.target.checked ? "1" : undefined })} /> Only where they never were</label>
        <${Slider} label="Diversity" value=${one.diversity} low="best first" high="unlike each other" onChange=${(v) => set({ diversity: v || undefined })} />
        <${Slider} label="Novelty" value=${one.novelty} low="best first" high="little visited" onChange=${(v) => set({ novelty: v || undefined })} />` : null}
      </details>
    </div>
    <${Problem} error=${load.error} />
    ${one.by === "oracle" && away ? html`<p class="empty">The oracle's lists are of people's own city.</p>` : null}
    ${oracle && !oracle.there ? html`<p class="empty">The oracle's lists are not there: <code>recsys evaluate</code> writes them.</p>` : null}
    ${oracle && oracle.there && !items.length ? html`<p class="empty">The oracle's lists are written for some people only, such as user ${" "}${oracle.examples.slice(0, 6).map((id) => html`<a key=${id} href=${`#/compare?${new URLSearchParams({ ...Object.fromEntries(Object.entries(at).filter(([k]) => k !== "view" && k !== "city")), user: id })}`}>${id}</a> `)}.</p>` : null}
    ${load.data && !items.length && !oracle ? html`<p class="empty">No place meets all of that.</p>` : null}
    <ol class="lines">
      ${items.map((item, i) => {
        const place = details?.get(item.place_id);
        const was = other.get(item.place_id) ?? null;
        return html`<li key=${item.place_id} class=${`line ${active === item.place_id ? "active" : ""}`} onMouseEnter=${() => onActive(item.place_id)} onMouseLeave=${() => onActive(null)}>
          <span class="rank num">${i + 1}</span>
          <div class="grow"><h3><${Name} text=${item.name} most=${70} /></h3>
            <p class="muted facts"><${Name} text=${item.neighborhood_name} most=${40} />${place ? html`<span>${place.categories.map(words).join(", ")}</span><${Price} band=${place.price_band} /><span>${words(slots[place.time_slot] ?? "")}</span>` : null}</p></div>
          <span class="num">${item.score !== undefined ? number(item.score, 3) : item.visitors !== undefined ? html`${number(item.visitors)}<span class="muted tiny"> visitors</span>` : ""}</span>
          <span class="mark-cell">${other.size ? html`<${Moved} move=${{ was, now: i + 1 }} alone />` : null}</span>
        </li>`;
      })}
    </ol>
  <//>`;
}

/** How much the model finds over the simple methods, as it was measured. */
function Gain({ tested }) {
  const rows = tested.rows.toSorted((x, y) => y.ndcg - x.ndcg);
  const most = Math.max(...rows.map((r) => r.ndcg));
  const of = Object.fromEntries(rows.map((r) => [r.method, r]));
  const times = of.model && of.popularity?.ndcg ? of.model.ndcg / of.popularity.ndcg : null;
  return html`<${Panel} id="gain-title" title="How much that is worth"
    source=${html`<${Source} text="recsys evaluate" label="recsys evaluate" />`}>
    <p class="lead">${times ? html`On the test weeks the model's lists are worth <strong class="num">${number(times, 1)} times</strong> popularity's${of.oracle ? html`, and <strong class="num">${percent(of.model.ndcg / of.oracle.ndcg)}</strong> of the best possible` : ""}.` : "As measured on the test weeks."} <span class="muted">NDCG@10 over ${number(tested.users)} people, from ${tested.test_from.slice(0, 10)} on.</span></p>
    <div class="bars">${rows.map((r) => html`<div key=${r.method} class=${`taste ${r.method === "model" ? "mine" : ""}`}><span>${words(r.method)}</span><span class="track" aria-hidden="true"><span class="fill" style=${{ width: `${(100 * r.ndcg) / most}%` }}></span></span><span class="num">${number(r.ndcg, 3)}</span></div>`)}</div>
  <//>`;
}
