// The shell: what serves, what is degraded, and the four views.

import { html, render, useEffect, useState } from "../vendor/htm-preact.js";
import { get, keySet, onKey, setKey } from "./api.js";
import { Compare } from "./compare.js";
import { Data } from "./data.js";
import { Explore } from "./explore.js";
import { Operate } from "./operate.js";
import { Name, Problem, useAddress, useLoad } from "./ui.js";

const VIEWS = { explore: ["Explore", Explore], compare: ["Compare", Compare], operate: ["Operate", Operate], data: ["Data", Data] };

function Banner({ degraded, ready }) {
  const said = [...new Set(degraded)];
  const parts = ready?.status === "degraded" ? Object.entries(ready.parts).filter(([, v]) => v !== "answers" && v !== "loaded") : [];
  if (!said.length && !parts.length) return null;
  return html`<div class="banner" role="alert">
    <strong>Degraded.</strong>
    ${parts.map(([name, state]) => html` <span key=${name}>The ${name.replaceAll("_", " ")} ${state === "does not answer" ? state : html`: <${Name} text=${state} most=${240} />`}.</span>`)}
    ${said.length ? html` <span>Answers do without: ${said.map((d) => html`<code key=${d}>${d}</code> `)}</span>` : null}
  </div>`;
}

function Theme() {
  const [theme, set] = useState(localStorage.getItem("recsys-theme") ?? "");
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("recsys-theme", theme);
  }, [theme]);
  const next = { "": "light", light: "dark", dark: "" };
  return html`<button type="button" class="quiet small" onClick=${() => set(next[theme])} aria-label=${`Colors: ${theme || "as the system"}`}>${{ "": "Auto", light: "Light", dark: "Dark" }[theme]}</button>`;
}

function Key({ needed }) {
  const [open, set] = useState(false);
  const [text, say] = useState("");
  const [has, setHas] = useState(keySet());
  useEffect(() => onKey(() => setHas(keySet())), []);
  const send = (e) => {
    e.preventDefault();
    setKey(text);
    say("");
    set(false);
  };
  return html`<span class="key">
    <button type="button" class="quiet small" aria-expanded=${open || needed} onClick=${() => set(!open)}>${has ? "Key set" : "API key"}</button>
    ${open || needed
      ? html`<form class="key-form" onSubmit=${send}>
          <label>API key <input type="password" autocomplete="off" value=${text} onInput=${(e) => say(e.target.value)} /></label>
          <button type="submit" class="small">Use</button>
          ${has ? html`<button type="button" class="quiet small" onClick=${() => (setKey(""), set(false))}>Forget</button>` : null}
          <p class="muted tiny">Kept in this tab alone.</p>
        </form>`
      : null}
  </span>`;
}

function App() {
  const [at, go] = useAddress();
  const [degraded, say] = useState([]);
  const [away, setAway] = useState(false); // a part does not answer, though no answer said so
  const setDegraded = (names, part = false) => (say(names), setAway(part));
  const about = useLoad(async () => {
    const [said, taxonomy] = await Promise.all([get("/console/about"), get("/taxonomy")]);
    return { data: { ...said.data, taxonomy: taxonomy.data }, call: said.call };
  }, "about");
  const [, View] = VIEWS[at.view] ?? VIEWS.explore;
  const ready = useLoad(() => get("/ready"), degraded.length || away ? `ready:${degraded.join()}` : null);
  useEffect(() => setDegraded([]), [at.view]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => (e.preventDefault(), document.getElementById("main").focus())}>Skip to the content</a>
    <div class="head"><header class="top">
      <a class="brand" href="#/explore"><span class="mark" aria-hidden="true"></span>recsys</a>
      <nav aria-label="Views">
        ${Object.entries(VIEWS).map(([name, [title]]) => html`<a key=${name} href=${`#/${name}`} aria-current=${(at.view in VIEWS ? at.view : "explore") === name ? "page" : undefined}>${title}</a>`)}
      </nav>
      <div class="status">
        ${about.data ? html`<span class="version mono" title="the version that answers"><${Name} text=${about.data.model_version} most=${40} /></span>` : null}
        <${Key} needed=${about.error?.status === 401} />
        <${Theme} />
        <a class="quiet" href="/docs">API</a>
      </div>
    </header>
    <${Banner} degraded=${degraded} ready=${ready.data} /></div>
    <main id="main" tabindex="-1">
      ${about.error ? html`<div class="box lone"><${Problem} error=${about.error} onRetry=${about.reload} /></div>` : null}
      ${about.data ? html`<${View} at=${at} go=${go} about=${about.data} taxonomy=${about.data.taxonomy} degraded=${setDegraded} refresh=${about.reload} />` : null}
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
