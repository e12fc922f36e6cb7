// Small parts that every panel uses. What the server says is always text, never markup.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { curl, onKey } from "./api.js";

export const MOST = 160; // characters of a name that are shown

/** A name or sentence of the data: clipped, and kept from turning what stands around it (right-to-left marks). */
export function Name({ text, most = MOST }) {
  const said = String(text ?? "");
  const letters = Array.from(said.slice(0, most + 1));
  const clipped = letters.length > most || said.length > most + 1;
  const shown = clipped ? `${letters.slice(0, most).join("")}…` : said;
  return html`<bdi title=${clipped ? said.slice(0, 500) : undefined}>${shown}</bdi>`;
}

export const words = (text) => String(text).replaceAll("_", " ");
export const number = (value, digits = 0) =>
  value === null || value === undefined
    ? "–"
    : Number(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const percent = (value, digits = 0) => `${number(100 * value, digits)} %`;

/** Load again whenever `key` changes; what was there stays until the new comes. `null` as key: nothing to load. */
export function useLoad(load, key) {
  const [state, set] = useState({ data: null, call: null, error: null, loading: key !== null });
  const [turn, again] = useState(0);
  const latest = useRef(0);
  useEffect(() => onKey(() => again((n) => n + 1)), []);
  useEffect(() => {
    if (key === null) {
      set({ data: null, call: null, error: null, loading: false });
      return;
    }
    const mine = ++latest.current;
    set((before) => ({ ...before, loading: true }));
    load().then(
      (got) => mine === latest.current && set({ ...got, error: null, loading: false }),
      (error) => mine === latest.current && set({ data: null, call: error.call, error, loading: false }),
    );
  }, [key, turn]);
  return { ...state, reload: () => again((n) => n + 1) };
}

export function useDebounced(value, ms) {
  const [late, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), ms);
    return () => clearTimeout(timer);
  }, [value]);
  return late;
}

/** Onto the clipboard; where a page without TLS has none, by the old way. */
async function put(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function Copy({ text, what = "Copy" }) {
  const [done, set] = useState(false);
  const copy = async () => {
    await put(text);
    set(true);
    setTimeout(() => set(false), 1500);
  };
  return html`<button type="button" class="quiet small" onClick=${copy} aria-live="polite">${done ? "Copied" : what}</button>`;
}

/** The request, command or SQL that made a panel, ready to copy, and what came back. */
export function Source({ call, text, label }) {
  if (!call && !text) return null;
  const said = text ?? curl(call);
  const summary = label ?? `${call.method} ${call.path.split("?")[0]}`;
  return html`<details class="source">
    <summary><span class="mono">${summary}</span>${call ? html`<span class="muted num"> ${call.status || "no answer"} · ${number(call.ms)} ms</span>` : null}</summary>
    <div class="source-body">
      <div class="code"><pre tabindex="0" aria-label="Command">${said}</pre><${Copy} text=${said} /></div>
      ${call?.answer ? html`<details><summary>Answer</summary><pre class="answer" tabindex="0" aria-label="Answer">${JSON.stringify(call.answer, null, 1).slice(0, 20_000)}</pre></details>` : null}
    </div>
  </details>`;
}

export function Problem({ error, onRetry }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <strong>${error.status ? `${error.status}` : "No answer"}</strong> <${Name} text=${error.message} most=${400} />
    ${onRetry ? html`<button type="button" class="quiet small" onClick=${onRetry}>Try again</button>` : null}
  </div>`;
}

/** A choice of a few, as radio buttons. */
export function Choice({ label, name, options, value, onChange, disabled }) {
  return html`<fieldset class="choice" disabled=${disabled}>
    <legend>${label}</legend>
    <div class="segments">
      ${options.map(
        ([key, text]) => html`<label key=${key} class="segment">
          <input type="radio" name=${name} value=${key} checked=${key === value} onChange=${() => onChange(key)} />
          <span>${text}</span>
        </label>`,
      )}
    </div>
  </fieldset>`;
}

export function Slider({ label, value, onChange, low, high }) {
  return html`<label class="slider">
    <span class="row"><span>${label}</span><output class="num">${number(value, 1)}</output></span>
    <input type="range" min="0" max="1" step="0.1" value=${value} onInput=${(e) => onChange(Number(e.target.value))} aria-label=${label} />
    <span class="row muted tiny"><span>${low}</span><span>${high}</span></span>
  </label>`;
}

export function Chips({ label, options, chosen, onToggle }) {
  return html`<fieldset class="choice">
    <legend>${label}</legend>
    <div class="chips">
      ${options.map(
        ([key, text]) => html`<button key=${key} type="button" class="chip" aria-pressed=${chosen.includes(key)} onClick=${() => onToggle(key)}>${text}</button>`,
      )}
    </div>
  </fieldset>`;
}

/** A share as a bar with its figure. */
export function Meter({ label, value, strong }) {
  return html`<div class=${`meter ${strong ? "strong" : ""}`}>
    <span class="meter-label">${label}</span>
    <span class="track" aria-hidden="true"><span class="fill" style=${{ width: `${Math.max(0, Math.min(1, value)) * 100}%` }}></span></span>
    <span class="num">${number(value, 2)}</span>
  </div>`;
}

export function Price({ band }) {
  return html`<span class="price" role="img" aria-label=${`price band ${band} of 0 to 4`} title=${`price band ${band} of 0 to 4`}>
    <span aria-hidden="true">${"$".repeat(band + 1)}</span><span class="off" aria-hidden="true">${"$".repeat(4 - band)}</span>
  </span>`;
}

export function Panel({ title, aside, source, busy, children, id }) {
  return html`<section class="panel" aria-labelledby=${id} aria-busy=${Boolean(busy)}>
    <header class="panel-head"><h2 id=${id}>${title}</h2>${aside}</header>
    <div class=${busy ? "stale" : ""}>${children}</div>
    ${source}
  </section>`;
}

// ---- the address says what is shown, so that it can be sent to somebody

const read = () => {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path || "explore", ...Object.fromEntries(new URLSearchParams(query ?? "")) };
};

export function useAddress() {
  const [said, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const go = (change) => {
    const { view, ...rest } = { ...read(), ...change };
    const kept = Object.entries(rest).filter(([, v]) => v !== undefined && v !== null && v !== "");
    location.hash = `/${view}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
  };
  return [said, go];
}
