// Operate: what serves, how it does, how fresh and how good the data are; publish and roll back with an operator's key.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { callsSoFar, get, getText, keySet, onKey, post } from "./api.js";
import { Lines } from "./charts.js";
import { histograms } from "./metrics.js";
import { Name, Panel, Problem, Source, number, percent, useLoad, words } from "./ui.js";

const EVERY_MS = 5_000;

const ago = (s) => {
  if (s === null || s === undefined) return "–";
  const [unit, size] = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]].find(([, n]) => s >= n) ?? ["s", 1];
  return `${Math.floor(s / size)} ${unit} ago`;
};

/** Counts up while somebody looks. */
function useBeat() {
  const [beat, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && set((n) => n + 1), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return beat;
}

export function Operate({ degraded, refresh }) {
  const beat = useBeat();
  const state = useLoad(() => get("/console/operations"), `operations:${beat}`);
  const versions = useLoad(() => get("/console/versions"), `versions:${beat}`);
  const metrics = useLoad(() => getText("/metrics"), `metrics:${beat}`);
  const now = state.data;
  useEffect(() => degraded([], now && Object.values(now.parts).some((p) => p !== "answers" && p !== "loaded")), [now]);
  return html`<div class="operate">
    <${Tiles} now=${now} live=${versions.data?.versions.find((v) => v.live)} />
    <${Problem} error=${state.error} onRetry=${state.reload} />
    <${Versions} versions=${versions} onChanged=${() => (versions.reload(), state.reload(), refresh())} />
    <div class="sides">
      <${Latency} metrics=${metrics} />
      <${Degradations} now=${now} call=${state.call} />
    </div>
    <div class="sides">
      <${Freshness} now=${now} call=${state.call} />
      <${Quality} now=${now} call=${state.call} />
    </div>
  </div>`;
}

/** A table that may be wider than a phone. */
function Wide({ label, children }) {
  return html`<div class="scroll" tabindex="0" role="group" aria-label=${label}>${children}</div>`;
}

function Tiles({ now, live }) {
  const model = live?.tested?.rows.find((r) => r.method === "model");
  const best = live?.tested?.rows.find((r) => r.method === "oracle");
  const away = now ? Object.entries(now.parts).filter(([, v]) => v !== "answers" && v !== "loaded") : [];
  const tiles = [
    ["Serves", live ? html`<${Name} text=${live.version} most=${40} />` : "–", live ? `knows what happened before ${String(live.until).slice(0, 10)}` : ""],
    ["Parts", now ? (away.length ? `${away.length} away` : "all answer") : "–", away.map(([name]) => words(name)).join(", ") || "online store, index, model"],
    ["Online store", now ? (now.online_keys === null ? "away" : number(now.online_keys)) : "–", now?.online_keys === null ? "does not answer" : `keys, ${number(now?.online_memory_mb)} MB`],
    ["NDCG@10", model ? number(model.ndcg, 3) : live?.ndcg ? number(live.ndcg, 3) : "–", model && best ? `${percent(model.ndcg / best.ndcg)} of the best possible` : "on the test weeks"],
    ["Data", now?.severity ?? "–", now?.refused ? "the last batch was refused" : "as the gate judged last"],
  ];
  return html`<dl class="tiles">${tiles.map(([name, value, about]) => html`<div key=${name} class="tile"><dt>${name}</dt><dd><strong>${value}</strong><span class="muted tiny">${about}</span></dd></div>`)}</dl>`;
}

function Versions({ versions, onChanged }) {
  const [key, setKeyThere] = useState(keySet());
  const [sure, setSure] = useState(null); // what waits for a second click
  const [done, setDone] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => onKey(() => setKeyThere(keySet())), []);
  const act = async (path, body) => {
    setBusy(true);
    setSure(null);
    setDone(null);
    try {
      setDone(await post(path, body));
      setTimeout(onChanged, 1_200); // a running API follows within a second
    } catch (error) {
      setDone({ error, call: error.call, force: error.status === 409 && body?.version });
    }
    setBusy(false);
    onChanged();
  };
  const list = versions.data?.versions ?? [];
  const ask = (name, text, go) =>
    sure === name
      ? html`<span class="sure"><button type="button" class="small" disabled=${busy} onClick=${go}>Yes, ${text}</button> <button type="button" class="quiet small" onClick=${() => setSure(null)}>No</button></span>`
      : html`<button type="button" class="quiet small" disabled=${!key || busy} onClick=${() => setSure(name)}>${text[0].toUpperCase()}${text.slice(1)}</button>`;
  return html`<${Panel} id="versions-title" title="Versions" source=${html`<${Source} call=${versions.call} />`} aside=${html`<span class="row">${key ? null : html`<span class="muted tiny">Publishing and rolling back need an operator's key.</span>`}${ask("rollback", "roll back", () => act("/console/rollback"))}</span>`}>
    <${Problem} error=${versions.error} />
    <div role="status">${busy ? html`<p class="muted">At work…</p>` : done && !done.error ? html`<p class="said"><${Name} text=${done.data.version} most=${64} /> is live. <${Name} text=${done.data.sentence ?? ""} most=${300} /></p>` : ""}</div>
    ${done?.error ? html`<${Problem} error=${done.error} />` : null}
    ${done?.force ? html`<p>${ask("force", "publish it all the same", () => act("/console/publish", { version: done.force, force: true }))}</p>` : null}
    ${done?.call ? html`<${Source} call=${done.call} /><${Source} text=${done.call.path.endsWith("rollback") ? "recsys rollback" : `recsys publish --version ${done.call.body.version}${done.call.body.force ? " --force" : ""}`} label="the same on the command line" />` : null}
    <${Wide} label="Versions as a table"><table class="versions">
      <thead><tr><th scope="col">Version</th><th scope="col">Knows until</th><th scope="col" class="num">NDCG@10 test</th><th scope="col" class="num">Recall@10 validation</th><th scope="col" class="num">over popularity</th><th scope="col" class="num">Friend AUC</th><th scope="col">State</th><th scope="col"><span class="sr">Publish</span></th></tr></thead>
      <tbody>${list.map((v) => {
        const of = Object.fromEntries(v.validation.map((r) => [r.method, r]));
        return html`<tr key=${v.version}>
          <th scope="row" class="mono"><${Name} text=${v.version} most=${64} /></th><td>${String(v.until ?? "–").slice(0, 10)}</td>
          <td class="num">${number(v.ndcg, 3)}</td><td class="num">${number(of.model?.recall, 3)}</td>
          <td class="num">${of.popularity?.recall ? `${number(of.model.recall / of.popularity.recall, 1)} ×` : "–"}</td><td class="num">${number(v.people.friend_auc, 3)}</td>
          <td>${v.live ? html`<span class="moved up">live</span>` : v.loaded ? html`<span class="moved">loaded</span>` : v.looks_back ? html`<span class="muted tiny">looks back</span>` : html`<span class="muted tiny">on disk</span>`}${versions.data.split === v.version ? html` <span class="moved">${percent(versions.data.share)} of users</span>` : null}${versions.data.shadow === v.version ? html` <span class="moved">shadow</span>` : null}</td>
          <td class="num">${v.live ? null : ask(v.version, `publish`, () => act("/console/publish", { version: v.version }))}</td>
        </tr>`;
      })}</tbody>
    </table><//>
    ${list.length ? html`<${Details} list=${list} />` : versions.data ? html`<p class="empty">No version yet: <code>recsys train</code>.</p>` : null}
  <//>`;
}

function Details({ list }) {
  const [name, set] = useState(null);
  const v = list.find((one) => one.version === name) ?? list.find((one) => one.live) ?? list[0];
  const stages = [...new Set(v.history.map((e) => (e.reads ? `${e.stage}, reads ${e.reads}` : e.stage)))];
  const rows = v.tested?.rows ?? v.validation;
  return html`<div class="details">
    <label class="field"><span>Look at</span><select value=${v.version} onChange=${(e) => set(e.target.value)}>${list.map((one) => html`<option key=${one.version} value=${one.version}>${one.version}</option>`)}</select></label>
    <div class="sides">
      <${Wide} label="Methods as a table"><table class="answer-table"><caption>${v.tested ? `On the test weeks, ${number(v.tested.users)} people, from ${v.tested.test_from.slice(0, 10)} on` : "On the validation weeks, when it was trained"}</caption>
        <thead><tr><th scope="col">Method</th><th scope="col" class="num">recall@10</th><th scope="col" class="num">NDCG@10</th><th scope="col" class="num">recall@200 of candidates</th></tr></thead>
        <tbody>${rows.map((r) => html`<tr key=${r.method} class=${r.method === "model" ? "mine" : ""}><th scope="row">${words(r.method)}</th><td class="num">${number(r.recall, 3)}</td><td class="num">${number(r.ndcg, 3)}</td><td class="num">${number(r.candidate_recall, 3)}</td></tr>`)}</tbody>
      </table><//>
      <figure><${Lines} series=${stages.map((stage) => ({ name: stage, points: v.history.map((e) => ((e.reads ? `${e.stage}, reads ${e.reads}` : e.stage) === stage ? e.ndcg : null)) }))} label="NDCG@10 on the validation weeks by epoch" ticks=${["first epoch", "last"]} /><figcaption class="muted tiny">NDCG@10 on the validation weeks, epoch by epoch: ${stages.join(" → ")}</figcaption></figure>
    </div>
  </div>`;
}

const TIMES = new Set(["recsys_request_seconds", "recsys_stage_seconds"]);
const median = (sorted) => sorted[sorted.length >> 1];

function Latency({ metrics }) {
  const own = [...callsSoFar()].map(([name, ms]) => ({ name, sorted: ms.toSorted((a, b) => a - b) }));
  const stages = (metrics.data ? histograms(metrics.data) : [])
    .filter((h) => h.count > 0 && TIMES.has(h.name) && !/^\/(console|metrics|ready|health)/.test(h.labels.route))
    .toSorted((a, b) => (a.labels.route + a.name).localeCompare(b.labels.route + b.name) || b.p50 - a.p50)
    .slice(0, 40);
  return html`<${Panel} id="latency-title" title="Latency" source=${html`<${Source} call=${metrics.call} />`}>
    <${Problem} error=${metrics.error} />
    ${stages.length ? html`<${Wide} label="Stages"><table class="answer-table"><caption>Of the service, milliseconds, since it started</caption><thead><tr><th scope="col">Request and stage</th><th scope="col" class="num">times</th><th scope="col" class="num">median</th><th scope="col" class="num">p95</th><th scope="col" class="num">p99</th></tr></thead>
      <tbody>${stages.map((h) => html`<tr key=${h.name + JSON.stringify(h.labels)}><th scope="row"><span class="mono"><${Name} text=${h.labels.route} most=${60} /></span> <span class="muted"><${Name} text=${h.labels.stage ?? `all of it, ${h.labels.status}`} most=${60} /></span></th><td class="num">${number(h.count)}</td>${[h.p50, h.p95, h.p99].map((q, i) => html`<td key=${i} class="num">${number(1e3 * q, 1)}</td>`)}</tr>`)}</tbody></table><//>` : null}
    <${Wide} label="Requests of this page"><table class="answer-table"><caption>Of this page's own requests, milliseconds, with the way there and back</caption><thead><tr><th scope="col">Request</th><th scope="col" class="num">times</th><th scope="col" class="num">median</th><th scope="col" class="num">worst</th></tr></thead>
      <tbody>${own.map(({ name, sorted }) => html`<tr key=${name}><th scope="row" class="mono">${name}</th><td class="num">${sorted.length}</td><td class="num">${number(median(sorted), 1)}</td><td class="num">${number(sorted.at(-1), 1)}</td></tr>`)}</tbody></table><//>
  <//>`;
}

function Degradations({ now, call }) {
  const rows = Object.entries(now?.degradations ?? {});
  return html`<${Panel} id="degraded-title" title="Parts and degradations" source=${html`<${Source} call=${call} />`}>
    <table class="answer-table"><caption>Parts</caption><tbody>${Object.entries(now?.parts ?? {}).map(([name, state]) => html`<tr key=${name}><th scope="row">${words(name)}</th><td class=${state === "answers" || state === "loaded" ? "good" : "bad"}><${Name} text=${state} most=${240} /></td></tr>`)}</tbody></table>
    ${rows.length ? html`<table class="answer-table"><caption>Answers of this process that did without</caption><tbody>${rows.map(([name, n]) => html`<tr key=${name}><th scope="row" class="mono">${name}</th><td class="num">${number(n)}</td></tr>`)}</tbody></table>` : html`<p class="muted">Every answer of this process was whole.</p>`}
  <//>`;
}

function Freshness({ now, call }) {
  const kinds = [["Feature views", now?.features], ["Tables", now?.tables], ["Jobs", now?.jobs]];
  return html`<${Panel} id="fresh-title" title="Freshness" source=${html`<${Source} call=${call} /><${Source} text="recsys status" label="recsys status" />`}>
    ${kinds.map(([title, rows]) => html`<table key=${title} class="answer-table"><caption>${title}</caption><tbody>${(rows ?? []).map((r) => html`<tr key=${r.name}><th scope="row">${words(r.name)}</th><td class="num muted">${r.error ? html`<${Name} text=${r.error} most=${100} />` : r.rows !== null ? `${number(r.rows)} rows` : r.seconds !== null ? `${number(r.seconds, 1)} s` : ""}</td><td class="num">${ago(r.age_s)}</td></tr>`)}</tbody></table>`)}
  <//>`;
}

function Quality({ now, call }) {
  const link = (page, text) => now?.reports.includes(page) && html`<${Report} key=${page} page=${page} text=${text} />`;
  return html`<${Panel} id="quality-title" title="Data quality" source=${html`<${Source} call=${call} /><${Source} text="recsys quality" label="recsys quality" />`} aside=${now?.severity ? html`<span class=${`moved ${now.severity === "ok" ? "up" : "down"}`}>${now.severity}</span>` : null}>
    ${now?.refused ? html`<p class="problem"><${Name} text=${now.refused} most=${400} /></p>` : null}
    ${now && !now.suites.length ? html`<p class="empty">Nothing has been judged yet: <code>recsys validate</code>.</p>` : html`<${Wide} label="Judged tables"><table class="answer-table"><caption>What the gate and the views' judges found last</caption>
      <thead><tr><th scope="col">Table or view</th><th scope="col" class="num">rows</th><th scope="col" class="num">rejected</th><th scope="col">broken rules</th><th scope="col">drift</th></tr></thead>
      <tbody>${(now?.suites ?? []).map((s) => html`<tr key=${s.name}><th scope="row">${words(s.name)}</th><td class="num">${number(s.rows)}</td><td class="num">${number(s.rejected)}</td><td>${s.broken.length ? html`<${Name} text=${s.broken.join("; ")} most=${140} />` : html`<span class="muted">none of ${s.rules}</span>`}</td><td class="muted">${s.drift === null ? "–" : html`${number(s.drift, 3)} in <${Name} text=${s.drifted} most=${40} />`}</td></tr>`)}</tbody></table><//>`}
    <p class="links">${[link("quality/index.html", "The full report"), link("training.html", "Training and evaluation"), link("world.html", "The synthetic world")]}</p>
  <//>`;
}

/** A report's page; where a key is needed, which a link cannot send, the page is fetched and saved. */
function Report({ page, text }) {
  const path = `/console/reports/${page}`;
  const save = async (event) => {
    if (!keySet()) return;
    event.preventDefault();
    const { data } = await getText(path);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([data], { type: "text/html" }));
    link.download = page.replaceAll("/", "-");
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return html`<a href=${path} target="_blank" rel="noopener" onClick=${save}>${text}</a>`;
}
