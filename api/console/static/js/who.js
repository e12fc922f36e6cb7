// Who is asked for: found by name or number, by chance, or made up.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { get } from "./api.js";
import { Chips, Name, Problem, Source, useDebounced, useLoad, words } from "./ui.js";

export const nameOf = (person) => person.name || person.source_id || `user ${person.user_id}`;

/** A combobox over `GET /console/users` (the pattern of WAI-ARIA: one text field, a list below it). */
export function FindPerson({ label, onPick, id, placeholder }) {
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0);
  const asked = useDebounced(text.trim(), 150);
  const { data, error } = useLoad(() => get(`/console/users?q=${encodeURIComponent(asked)}&limit=8`), asked ? asked : null);
  const found = asked ? (data?.users ?? []) : [];
  useEffect(() => setAt(0), [data]);
  const pick = (person) => {
    setText("");
    setOpen(false);
    onPick(person);
  };
  const onKeyDown = (e) => {
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      setOpen(true);
      if (found.length) setAt((at + (e.key === "ArrowDown" ? 1 : found.length - 1)) % found.length);
    } else if (e.key === "Enter" && open && found[at]) {
      e.preventDefault();
      pick(found[at]);
    } else if (e.key === "Escape") setOpen(false);
  };
  const shown = open && asked !== "";
  return html`<div class="find">
    <label for=${id}>${label}</label>
    <input id=${id} type="text" role="combobox" aria-expanded=${shown} aria-controls=${`${id}-list`} aria-autocomplete="list" autocomplete="off" spellcheck="false"
      aria-activedescendant=${shown && found[at] ? `${id}-${at}` : undefined} placeholder=${placeholder} value=${text}
      onInput=${(e) => (setText(e.target.value), setOpen(true))} onKeyDown=${onKeyDown} onFocus=${() => setOpen(true)} onBlur=${() => setTimeout(() => setOpen(false), 150)} />
    <ul id=${`${id}-list`} role="listbox" aria-label="People found" class="found" hidden=${!shown || !found.length}>
      ${found.map(
        (person, i) => html`<li key=${person.user_id} id=${`${id}-${i}`} role="option" aria-selected=${i === at} onMouseDown=${(e) => (e.preventDefault(), pick(person))}>
          <${Name} text=${nameOf(person)} most=${60} /> <span class="muted num">${person.user_id}</span> <span class="muted"><${Name} text=${person.city_name} most=${40} /></span>
        </li>`,
      )}
    </ul>
    <p class="muted tiny" role="status">${shown && data && !found.length && asked === text.trim() ? "Nobody has this name or number." : ""}</p>
    <${Problem} error=${error} />
  </div>`;
}

/** What is known of somebody, as the online store has it. */
export function Profile({ person, call, error, loading }) {
  if (error) return html`<${Problem} error=${error} />`;
  if (!person) return html`<p class="muted">…</p>`;
  const most = Math.max(...person.categories.map((c) => c.weight), 0.01);
  return html`<div class=${loading ? "stale" : ""}>
    <h2 class="person-name"><${Name} text=${nameOf(person)} most=${60} /></h2>
    <p class="muted facts"><span class="num">user ${person.user_id}</span><${Name} text=${person.neighborhood_name} most=${40} /><${Name} text=${person.city_name} most=${40} /></p>
    <div class="tastes" aria-label="Tastes" role="group">
      ${person.categories.slice(0, 6).map((c) => html`<div key=${c.name} class="taste"><span>${words(c.name)}</span><span class="track" aria-hidden="true"><span class="fill" style=${{ width: `${(100 * c.weight) / most}%` }}></span></span><span class="num muted">${Math.round(100 * c.weight)} %</span></div>`)}
    </div>
    <p class="tags">${person.tags.map((t) => html`<span key=${t.name} class="tag">${words(t.name)}</span>`)}</p>
    ${person.vibes.length ? html`<p class="muted tiny">${person.vibes.map((v) => words(v.name)).join(" · ")}</p>` : null}
    <details class="history">
      <summary>Latest places <span class="muted num">${person.recent.length}</span></summary>
      <ol>${person.recent.map((p) => html`<li key=${p.place_id}><${Name} text=${p.name} most=${60} /> <span class="muted"><${Name} text=${p.neighborhood_name} most=${40} /></span></li>`)}</ol>
    </details>
    <${Source} call=${call} />
  </div>`;
}

/** Somebody who is not known yet: what they say they like. */
export function MadeUp({ taxonomy, categories, tags, onChange }) {
  const [open, set] = useState(0);
  const toggle = (list, one) => (list.includes(one) ? list.filter((x) => x !== one) : [...list, one]);
  const named = (list) => list.map((name, i) => [i, words(name)]);
  const of = categories.length ? categories : [open];
  const shown = named(taxonomy.tags).filter(([i]) => of.includes(taxonomy.tag_category[i]) || tags.includes(i)).slice(0, 48);
  return html`<div>
    <h2 class="person-name">Somebody new</h2>
    <p class="muted tiny">No history and no vector: ranked by popularity and by what they say.</p>
    <${Chips} label="They like" options=${named(taxonomy.categories)} chosen=${categories} onToggle=${(c) => (set(c), onChange({ categories: toggle(categories, c), tags }))} />
    <${Chips} label="In particular" options=${shown} chosen=${tags} onToggle=${(t) => onChange({ categories, tags: toggle(tags, t) })} />
  </div>`;
}
