// What `GET /metrics` says (Prometheus' text format), as far as a person looks at it: quantiles of every histogram.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

const labelsOf = (text) => Object.fromEntries([...(text ?? "").matchAll(LABEL)].map(([, k, v]) => [k, v.replaceAll('\\"', '"')]));

/** A quantile from cumulative buckets [[upper bound, count]], straight lines between bounds. */
export function quantile(q, buckets) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const wanted = q * total;
  let [low, before] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= wanted) return bound === Infinity ? low : low + ((bound - low) * (wanted - before)) / (count - before || 1);
    [low, before] = [bound, count];
  }
  return low;
}

/** Histograms by name and labels: how many, the median and the 95th and 99th percentile, in the unit of the name. */
export function histograms(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const [, name, inside, value] = LINE.exec(line) ?? [];
    if (!name?.endsWith("_bucket")) continue;
    const { le, ...labels } = labelsOf(inside);
    const key = `${name.slice(0, -7)} ${JSON.stringify(labels)}`;
    if (!found.has(key)) found.set(key, { name: name.slice(0, -7), labels, buckets: [] });
    found.get(key).buckets.push([le === "+Inf" ? Infinity : Number(le), Number(value)]);
  }
  return [...found.values()].map(({ name, labels, buckets }) => {
    buckets.sort((a, b) => a[0] - b[0]);
    return { name, labels, count: buckets.at(-1)[1], p50: quantile(0.5, buckets), p95: quantile(0.95, buckets), p99: quantile(0.99, buckets) };
  });
}
