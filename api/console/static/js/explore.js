// Explore: one person, one city, one moment; where to go, with whom, and all of them together.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { compact, get, placesOf, post } from "./api.js";
import { PersonCard, PlaceCard } from "./cards.js";
import { CityMap } from "./map.js";
import { Chips, Choice, Name, Panel, Problem, Slider, Source, number, useLoad, words } from "./ui.js";
import { FindPerson, MadeUp, Profile, nameOf } from "./who.js";

export const DAYS = [["", "Any day"], ["0", "Weekday"], ["1", "Weekend"]];
export const TIMES = [["0", "Morning"], ["1", "Afternoon"], ["2", "Evening"], ["3", "Night"]];
const WIDE = matchMedia("(min-width: 52rem)").matches; // on a phone the answer comes first
const list = (text) => (text ? text.split(",").map(Number) : []);

/** What the address says is asked for. */
export function asked(at, about) {
  const made = at.made === "1";
  const user = made ? null : Number(at.user ?? about.someone);
  return {
    made,
    user,
    categories: list(at.likes),
    tags: list(at.tags),
    city: at.city === undefined ? null : Number(at.city),
    slot: at.day ? about.slot_by_day_and_time[Number(at.day)][Number(at.time ?? 2)] : null,
  };
}

/** The body of a request for places. */
export function placesBody(who, how, city) {
  return compact({
    user_id: who.user,
    profile: who.made ? { categories: who.categories, tags: who.tags } : null,
    city_id: city,
    time_slot: who.slot,
    diversity: how.diversity || null,
    novelty: how.novelty || null,
    exclude_visited: how.fresh,
    filters: filtersOf(how),
    explain: how.explain,
    top_k: how.top_k ?? 10,
  });
}

export function filtersOf(how) {
  const filters = compact({
    price: how.price ? { max: Number(how.price) - 1 } : null,
    categories: how.kinds,
    neighborhoods: how.area === null || how.area === undefined ? null : [how.area],
  });
  return Object.keys(filters).length ? filters : null;
}

const eventId = () => `console-${[...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(16).padStart(2, "0")).join("")}`;

/** Details of the places of a list; null until they are there. */
export function usePlaces(ids) {
  const [places, set] = useState(null);
  const key = ids.join();
  useEffect(() => {
    let here = true;
    if (ids.length) placesOf(ids).then((found) => here && set(new Map(found)), () => here && set(new Map()));
    return () => (here = false);
  }, [key]);
  return places;
}

export function When({ at, go }) {
  return html`<div>
    <${Choice} label="Day" name="day" options=${DAYS} value=${at.day ?? ""} onChange=${(day) => go({ day })} />
    <${Choice} label="Time" name="time" options=${TIMES} value=${at.time ?? "2"} disabled=${!at.day} onChange=${(time) => go({ time })} />
  </div>`;
}

export function Where({ about, city, go }) {
  return html`<label class="field"><span>City</span>
    <select value=${String(city ?? "")} onChange=${(e) => go({ city: e.target.value, area: undefined })}>
      ${about.cities.map((c) => html`<option key=${c.city_id} value=${String(c.city_id)}>${c.city_name.slice(0, 60)}</option>`)}
    </select>
  </label>`;
}

export const PRICES = [["", "Any"], ["1", "$"], ["2", "$$"], ["3", "$$$"], ["4", "$$$$"]];

export function Explore({ at, go, about, taxonomy, degraded }) {
  const who = asked(at, about);
  const how = {
    diversity: Number(at.diversity ?? 0), novelty: Number(at.novelty ?? 0), fresh: at.fresh === "1", price: at.price,
    kinds: list(at.kinds), area: at.area === undefined ? null : Number(at.area), explain: "parts",
  };
  const [active, setActive] = useState(null);
  const [target, setTarget] = useState(null);
  const [group, setGroup] = useState([]);
  const [strategy, setStrategy] = useState("least_misery");
  const [told, setTold] = useState(null); // the last event, and the list before it
  const [done, setDone] = useState({});

  const person = useLoad(() => get(`/console/users/${who.user}`), who.made ? null : `${who.user}:${told?.turn ?? 0}`);
  const home = person.data && person.data.user_id === who.user ? person.data.city_id : null;
  const city = who.city ?? (who.made ? about.cities[0].city_id : home);
  const map = useLoad(() => get(`/console/cities/${city}`), city === null ? null : String(city));

  const body = placesBody(who, how, city);
  const ready = city !== null;
  const key = ready ? JSON.stringify(body) : null;
  const places = useLoad(() => post("/recommend/places", body), key && `${key}:${told?.turn ?? 0}`);
  const items = places.data?.recommendations ?? [];
  const details = usePlaces(items.map((i) => i.place_id));

  const peopleBody = compact({ user_id: who.user, city_id: city, target_place_id: target?.place_id, time_slot: who.slot, top_k: 6 });
  const people = useLoad(() => post("/recommend/people", peopleBody), who.made || !ready ? null : JSON.stringify(peopleBody));

  const groupBody = compact({ user_ids: [who.user, ...group.map((p) => p.user_id)], city_id: city, time_slot: who.slot, strategy, filters: filtersOf(how), top_k: 5 });
  const together = useLoad(() => post("/recommend/groups", groupBody), who.made || !group.length || !ready ? null : JSON.stringify(groupBody));

  useEffect(() => {
    setTarget(null);
    setGroup([]);
    setTold(null);
    setDone({});
  }, [who.user, who.made]);
  useEffect(() => setTarget(null), [city]);
  useEffect(() => degraded([places.data, people.data, together.data, person.data].flatMap((d) => d?.degraded ?? []).filter((d) => d !== "user_vector")), [places.data, people.data, together.data, person.data]);
  useEffect(() => setTold((t) => (t && t.key !== key ? { ...t, before: null } : t)), [key]);

  const onEvent = async (item, kind) => {
    const before = new Map(items.map((it, i) => [it.place_id, { rank: i + 1, score: it.score }]));
    const event = { events: [{ id: eventId(), user_id: who.user, place_id: item.place_id, kind }] };
    try {
      const { data, call } = await post("/events", event);
      setDone((d) => ({ ...d, [item.place_id]: new Set([...(d[item.place_id] ?? []), kind]) }));
      setTold((t) => ({ turn: (t?.turn ?? 0) + 1, before, key, item, kind, call, online: data.online }));
    } catch (error) {
      setTold((t) => ({ ...t, turn: t?.turn ?? 0, error, call: error.call }));
    }
  };
  const move = (item, now) => told?.before && !places.loading && { was: told.before.get(item.place_id)?.rank ?? null, now };
  const moves = told?.before ? items.filter((item, i) => move(item, i + 1) && move(item, i + 1).was !== i + 1).length : 0;
  const note = (item, now) => {
    if (!told?.before || told.error || places.loading || told.item.place_id !== item.place_id) return null;
    const was = told.before.get(item.place_id);
    return told.online ? `Noted. Rank ${was.rank} → ${now}, score ${number(was.score, 4)} → ${number(item.score, 4)}.` : "Noted in the log; it counts as soon as the online store can.";
  };
  const marks = items.map((item, i) => ({ ...(details?.get(item.place_id) ?? {}), place_id: item.place_id, rank: i + 1 }));
  const show = (id) => document.getElementById(`place-${id}`)?.scrollIntoView({ behavior: "smooth", block: "center" });
  const explainBody = (item) => (who.made ? null : compact({ ...body, profile: null, explain: null, place_id: item.place_id }));
  const area = map.data?.neighborhoods.find((n) => n.neighborhood_id === how.area);

  return html`<div class="explore">
    <aside class="side" aria-label="Who, where and when">
      <div class="box">
        <${FindPerson} id="find" label="Person" placeholder="Name or number" onPick=${(p) => go({ user: p.user_id, made: undefined, city: undefined, area: undefined })} />
        <div class="row wrap">
          <button type="button" class="quiet" onClick=${async () => {
            const { data } = await get("/console/users?limit=1");
            if (data.users.length) go({ user: data.users[0].user_id, made: undefined, city: undefined, area: undefined });
          }}>Surprise me</button>
          <button type="button" class="quiet" aria-pressed=${who.made} onClick=${() => go(who.made ? { made: undefined } : { made: "1", city: city ?? about.cities[0].city_id, area: undefined })}>Make one up</button>
        </div>
      </div>
      <div class="box">
        ${who.made
          ? html`<${MadeUp} taxonomy=${taxonomy} categories=${who.categories} tags=${who.tags} onChange=${(p) => go({ likes: p.categories.join(), tags: p.tags.join() })} />`
          : html`<${Profile} person=${person.data} call=${person.call} error=${person.error} loading=${person.loading} />`}
      </div>
      <details class="box filters" open=${WIDE}>
        <summary>Where, when, and what</summary>
        <${Where} about=${about} city=${city} go=${go} />
        <${When} at=${at} go=${go} />
        <${Choice} label="Price up to" name="price" options=${PRICES} value=${at.price ?? ""} onChange=${(price) => go({ price })} />
        <${Chips} label="Only" options=${taxonomy.categories.map((c, i) => [i, words(c)])} chosen=${how.kinds} onToggle=${(c) => go({ kinds: (how.kinds.includes(c) ? how.kinds.filter((k) => k !== c) : [...how.kinds, c]).join() })} />
        ${map.data
          ? html`<label class="field"><span>Neighborhood</span>
              <select value=${String(how.area ?? "")} onChange=${(e) => go({ area: e.target.value })}>
                <option value="">All</option>
                ${map.data.neighborhoods.map((n) => html`<option key=${n.neighborhood_id} value=${String(n.neighborhood_id)}>${n.name.slice(0, 60)}</option>`)}
              </select>
            </label>`
          : null}
        <label class="check"><input type="checkbox" checked=${how.fresh} onChange=${(e) => go({ fresh: e.target.checked ? "1" : undefined })} /> Only where they never were</label>
        <${Slider} label="Diversity" value=${how.diversity} low="best first" high="unlike each other" onChange=${(v) => go({ diversity: v || undefined })} />
        <${Slider} label="Novelty" value=${how.novelty} low="best first" high="little visited" onChange=${(v) => go({ novelty: v || undefined })} />
      </details>
    </aside>

    <div class="middle">
      ${map.data ? html`<${CityMap} city=${map.data} marks=${marks} home=${person.data?.city_id === city ? person.data?.neighborhood_name : null} active=${active} onActive=${setActive} onPick=${show} chosen=${how.area} onArea=${(id) => go({ area: id === how.area ? undefined : id })} />` : html`<div class="map empty"><${Problem} error=${map.error} /></div>`}
      <${Panel} id="places-title" title=${html`Places to go${places.data ? html` in <${Name} text=${places.data.city_name} most=${40} />` : ""}`} busy=${places.loading}
        aside=${area ? html`<button type="button" class="chip" aria-pressed="true" onClick=${() => go({ area: undefined })}>${area.name.slice(0, 40)} ×</button>` : null}
        source=${html`<${Source} call=${places.call} />`}>
        <p class="said" role="status">
          ${told?.error ? html`<${Problem} error=${told.error} />` : null}
          ${told?.before && !told.error && !places.loading
            ? html`Noted: ${words(told.kind)}, <${Name} text=${told.item.name} most=${60} />. ${told.online ? (moves ? `The list answers: ${moves} ${moves === 1 ? "place" : "places"} moved.` : `The list answers: same order, its score is now ${number(items.find((i) => i.place_id === told.item.place_id)?.score ?? 0, 4)} (was ${number(told.before.get(told.item.place_id)?.score ?? 0, 4)}).`) : "It is in the log, and counts as soon as the online store can."}`
            : null}
        </p>
        ${told?.call ? html`<${Source} call=${told.call} />` : null}
        <${Problem} error=${places.error} onRetry=${places.reload} />
        ${places.data && !items.length ? html`<p class="empty">No place meets all of that. Take a filter away.</p>` : null}
        <ol class="cards">
          ${items.map(
            (item, i) => html`<${PlaceCard} key=${item.place_id} item=${item} rank=${i + 1} place=${details?.get(item.place_id)} slots=${about.time_slots} move=${move(item, i + 1)}
              active=${active === item.place_id} onActive=${setActive} onEvent=${who.made ? null : onEvent} onCompany=${who.made ? null : setTarget} explain=${explainBody(item)} done=${done[item.place_id]} note=${note(item, i + 1)} />`,
          )}
        </ol>
      <//>
    </div>

    <div class="end">
      ${who.made
        ? html`<div class="box"><h2>People</h2><p class="muted">People are found for somebody the model knows.</p></div>`
        : html`
          <${Panel} id="people-title" title="People to go with" busy=${people.loading} source=${html`<${Source} call=${people.call} />`}
            aside=${target ? html`<button type="button" class="chip" aria-pressed="true" onClick=${() => setTarget(null)}>to <${Name} text=${target.name} most=${28} /> ×<span class="sr"> any place</span></button>` : null}>
            <${Problem} error=${people.error} onRetry=${people.reload} />
            <ol class="cards">
              ${(people.data?.recommendations ?? []).map(
                (item, i) => html`<${PersonCard} key=${item.user_id} item=${item} rank=${i + 1} invited=${group.some((p) => p.user_id === item.user_id)} onInvite=${(p) => setGroup((g) => (g.length < 9 ? [...g, p] : g))}
                  onVisit=${(p) => go({ user: p.user_id, city: undefined, area: undefined })} explain=${compact({ ...peopleBody, person_id: item.user_id })} />`,
              )}
            </ol>
          <//>
          <${Group} me=${person.data} group=${group} setGroup=${setGroup} strategy=${strategy} setStrategy=${setStrategy} together=${together} />`}
    </div>
  </div>`;
}

function Group({ me, group, setGroup, strategy, setStrategy, together }) {
  const add = (p) => setGroup((g) => (g.some((x) => x.user_id === p.user_id) || p.user_id === me?.user_id || g.length >= 9 ? g : [...g, p]));
  const names = new Map([...(me ? [[me.user_id, nameOf(me)]] : []), ...group.map((p) => [p.user_id, nameOf(p)])]);
  return html`<${Panel} id="group-title" title="Group planner" busy=${together.loading} source=${html`<${Source} call=${together.call} />`}>
    <p class="members">
      ${me ? html`<span class="chip fixed"><${Name} text=${nameOf(me)} most=${30} /></span>` : null}
      ${group.map((p) => html`<button key=${p.user_id} type="button" class="chip" aria-pressed="true" onClick=${() => setGroup((g) => g.filter((x) => x.user_id !== p.user_id))}><${Name} text=${nameOf(p)} most=${30} /> ×<span class="sr"> remove</span></button>`)}
    </p>
    <${FindPerson} id="invite" label="Add somebody" placeholder="Name or number" onPick=${add} />
    <${Choice} label="A place is as good as it is" name="strategy" options=${[["least_misery", "for whom it suits least"], ["average", "on average"]]} value=${strategy} onChange=${setStrategy} />
    <${Problem} error=${together.error} />
    ${group.length ? null : html`<p class="muted">Add somebody from the list above to see where all of them would go.</p>`}
    <ol class="cards">
      ${(group.length ? (together.data?.recommendations ?? []) : []).map(
        (item, i) => html`<li key=${item.place_id} class="card">
          <div class="card-top"><span class="rank num">${i + 1}</span><div class="grow"><h3><${Name} text=${item.name} most=${70} /></h3><p class="muted facts"><${Name} text=${item.neighborhood_name} most=${40} /></p></div><div class="score"><span class="num big">${number(item.score, 3)}</span></div></div>
          <div class="meters">${item.members.map((m) => html`<div key=${m.user_id} class="taste"><span><${Name} text=${names.get(m.user_id) ?? `user ${m.user_id}`} most=${24} /></span><span class="track" aria-hidden="true"><span class="fill" style=${{ width: `${100 * m.score}%` }}></span></span><span class="num">${number(m.score, 2)}</span></div>`)}</div>
        </li>`,
      )}
    </ol>
  <//>`;
}
