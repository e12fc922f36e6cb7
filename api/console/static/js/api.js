// Asking the API: every call can be shown as the command that makes it, and every failure in the API's own words.

let secret = sessionStorage.getItem("recsys-key") ?? "";
const listeners = new Set();

export const keySet = () => secret !== "";

export function setKey(value) {
  secret = value.trim();
  if (secret) sessionStorage.setItem("recsys-key", secret);
  else sessionStorage.removeItem("recsys-key");
  listeners.forEach((tell) => tell());
}

export function onKey(tell) {
  listeners.add(tell);
  return () => listeners.delete(tell);
}

export class ApiError extends Error {
  constructor(message, status, call) {
    super(message);
    this.status = status;
    this.call = call;
  }
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The command that makes a call, for a shell. */
export function curl({ method, path, body }) {
  const parts = [`curl -s ${quoted(location.origin + path)}`];
  if (method !== "GET" && !(method === "POST" && body)) parts[0] += ` -X ${method}`;
  if (secret) parts.push(`-H "X-API-Key: $RECSYS_KEY"`);
  if (body) parts.push("-H 'content-type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return parts.join(" \\\n  ");
}

/** Ask. The answer comes with `call`: what was asked, how long it took, and the body as it came. */
export async function ask(method, path, body) {
  const call = { method, path, body, status: 0, ms: 0, answer: null };
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (secret) headers["x-api-key"] = secret;
  const began = performance.now();
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    call.answer = await response.json();
  } catch {
    throw new ApiError("The API does not answer.", 0, call);
  } finally {
    call.ms = performance.now() - began;
    note(call);
  }
  call.status = response.status;
  if (!response.ok) throw new ApiError(call.answer?.detail ?? response.statusText, response.status, call);
  return { data: call.answer, call };
}

/** Milliseconds of the calls of this page, the last hundred of each kind. */
const times = new Map();
export const callsSoFar = () => times;

function note({ method, path, ms }) {
  const name = `${method} ${path.split("?")[0].replace(/\/\d+$/, "/…")}`;
  const kept = times.get(name) ?? [];
  kept.push(ms);
  times.set(name, kept.slice(-100));
}

/** The same for what is no JSON. */
export async function getText(path) {
  const call = { method: "GET", path, body: undefined, status: 0, ms: 0, answer: null };
  const began = performance.now();
  let response;
  let data;
  try {
    response = await fetch(path, { headers: secret ? { "x-api-key": secret } : {} });
    data = await response.text();
  } catch {
    throw new ApiError("The API does not answer.", 0, call);
  }
  Object.assign(call, { ms: performance.now() - began, status: response.status });
  if (!response.ok) throw new ApiError(response.statusText, response.status, call);
  return { data, call };
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

/** What is said and not empty, so that a request holds what matters alone. */
export function compact(fields) {
  const kept = Object.entries(fields).filter(
    ([, value]) => !(value === undefined || value === null || value === "" || value === false
      || (Array.isArray(value) && !value.length)),
  );
  return Object.fromEntries(kept);
}

/** Details of places by id, asked for together and kept: what a card says besides score and reasons. */
const places = new Map();

export async function placesOf(ids) {
  const missing = [...new Set(ids)].filter((id) => !places.has(id));
  for (let at = 0; at < missing.length; at += 100) {
    const query = missing.slice(at, at + 100).map((id) => `ids=${id}`).join("&");
    const { data } = await get(`/console/places?${query}`);
    for (const place of data.places) places.set(place.place_id, place);
  }
  return places;
}
