// The curves of a job: the thinned ones, and what came live behind them.
import { signal } from "../vendor/signals.js";
import { get, query, segment } from "../api.js";

const POINTS = 600;
/** Points that came live and are kept; then the thinned curve is fetched anew. */
const LIVE = 2_000;

/** Numbers that a snapshot has by itself; `extra` and `eval_metrics` add theirs by name. */
const OWN = ["loss", "learning_rate", "grad_norm", "tokens_per_second", "samples_per_second", "gpu_utilization"];

/** Numbers that say where a step is, and draw no curve. */
const NO_SERIES = ["total_steps", "epoch"];

/** @typedef {{x: number[], y: (number | null)[], low: (number | null)[], high: (number | null)[]}} Curve */

export class Curves {
  /** @param {string} job */
  constructor(job) {
    this.job = job;
    this.changed = signal(0);
    this.error = signal(/** @type {any} */ (null));
    /** @type {Map<string, Curve>} */
    this.thinned = new Map();
    /** @type {any[]} */
    this.live = [];
    this.sequence = 0;
    this.controller = new AbortController();
    this.scheduled = false;
  }

  close() {
    this.controller.abort();
  }

  /** @param {{x: "step" | "time", from?: number, to?: number}} which */
  async load({ x, from, to }) {
    this.controller.abort();
    this.controller = new AbortController();
    const { signal: ended } = this.controller;
    try {
      const told = await get(
        `/jobs/${segment(this.job)}/metrics${query({ shape: "columns", max_points: POINTS, x, from_step: from, to_step: to })}`,
        ended,
      );
      this.thinned = curvesOf(told);
      this.live = this.live.filter((point) => point.step > this.#lastStep());
      this.x = x;
      this.error.value = null;
    } catch (error) {
      if (!ended.aborted) this.error.value = error;
    }
    this.changed.value += 1;
  }

  /** @param {any} snapshot */
  add(snapshot) {
    if (snapshot.sequence && snapshot.sequence <= this.sequence) return;
    this.sequence = snapshot.sequence ?? 0;
    this.live.push(snapshot);
    if (this.live.length > LIVE) this.load({ x: this.x });
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      this.changed.value += 1;
    }, 250);
  }

  /** @type {"step" | "time"} */
  x = "step";

  #lastStep() {
    let last = -Infinity;
    for (const curve of this.thinned.values()) last = Math.max(last, curve.x.at(-1) ?? -Infinity);
    return this.x === "step" ? last : -Infinity;
  }

  /** The names of the series, loss first. @returns {string[]} */
  names() {
    const names = new Set(this.thinned.keys());
    for (const point of this.live) for (const name of Object.keys(numbers(point))) names.add(name);
    const rank = (/** @type {string} */ name) => (OWN.indexOf(name) + OWN.length + 1) % (OWN.length + 1);
    for (const name of NO_SERIES) names.delete(name);
    return [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  }

  /** @param {string} name @returns {Curve} */
  curve(name) {
    const known = this.thinned.get(name) ?? { x: [], y: [], low: [], high: [] };
    const x = [...known.x];
    const y = [...known.y];
    const low = [...known.low];
    const high = [...known.high];
    for (const point of this.live) {
      const said = numbers(point);
      const value = Object.hasOwn(said, name) ? said[name] : undefined;
      const place = this.x === "step" ? point.step : Date.parse(point.timestamp) / 1000;
      if (value === undefined || place <= (x.at(-1) ?? -Infinity)) continue;
      x.push(place);
      y.push(value);
      low.push(value);
      high.push(value);
    }
    return { x, y, low, high };
  }
}

/** @param {any} point @returns {Record<string, number | null>} */
function numbers(point) {
  /** @type {Record<string, number | null>} */
  const found = {};
  for (const name of OWN) {
    if (point[name] !== undefined && point[name] !== null) found[name] = point[name];
  }
  return { ...found, ...point.eval_metrics, ...point.extra };
}

/** `shape=columns` as curves by name. @param {any} told @returns {Map<string, Curve>} */
export function curvesOf(told) {
  const curves = new Map();
  for (const [name, column] of Object.entries(told.series ?? {})) {
    const { x, y, buckets } = /** @type {any} */ (column);
    const band = told.x === "step" && buckets ? bandOf(x, y, buckets) : { low: y, high: y };
    curves.set(name, { x, y, ...band });
  }
  return curves;
}

/**
 * The minimum and maximum around each point: of the stretch that ends at it.
 * @param {number[]} x @param {(number | null)[]} y @param {any} buckets by step
 */
function bandOf(x, y, buckets) {
  const low = [...y];
  const high = [...y];
  let at = 0;
  x.forEach((step, index) => {
    while (at < buckets.to_step.length && buckets.to_step[at] < (x[index - 1] ?? -Infinity)) at += 1;
    for (let each = at; each < buckets.from_step.length && buckets.from_step[each] <= step; each += 1) {
      const [least, most] = [buckets.minimum[each], buckets.maximum[each]];
      if (least !== null) low[index] = Math.min(low[index] ?? least, least);
      if (most !== null) high[index] = Math.max(high[index] ?? most, most);
    }
  });
  return { low, high };
}

/** An exponential mean, as training people smooth curves. @param {(number | null)[]} values @param {number} weight */
export function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0;
  let debias = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    mean = mean * weight + value * (1 - weight);
    debias = debias * weight + (1 - weight);
    return mean / debias;
  });
}
