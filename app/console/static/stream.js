// `GET /events`, held through breaks: one loop for whoever reads it.
import { ApiError, query, request } from "./api.js";
import { eventsOf } from "./sse.js";

const SHORTEST_MS = 500;
const LONGEST_MS = 15_000;
/** Without a byte for so long, a connection is broken: three keepalives. */
const SILENCE_MS = 45_000;
/** The gateway says when to come back; no longer than this is heeded. */
const LONGEST_TOLD_MS = 60_000;

/**
 * @typedef {{name: string, data: any}} Told
 * @typedef {{
 *   selection: () => Record<string, unknown>,
 *   opened: () => void,
 *   heard: (events: Told[], cursor: string) => void,
 *   refused: (error: ApiError) => "stop" | "at once" | "later",
 *   broken: (waitMs: number, error: ApiError | null) => void,
 * }} Reader what is asked for, and who is told of what; `refused` decides what becomes of it
 */

/**
 * Read until aborted or stopped. Events may come twice after a break: whoever takes them drops
 * what it has. `place` has the id to go on behind, and is kept up to date.
 * @param {Reader} reader
 * @param {{cursor: string}} place
 * @param {AbortSignal} ended
 */
export async function readEvents(reader, place, ended) {
  let pause = SHORTEST_MS;
  let told = 0;
  while (!ended.aborted) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    ended.addEventListener("abort", abort);
    let watchdog = setTimeout(abort, SILENCE_MS);
    /** @type {ApiError | null} */
    let failure = null;
    try {
      const response = await request("GET", `/events${query(reader.selection())}`, {
        headers: place.cursor ? { "Last-Event-ID": place.cursor } : {},
        signal: attempt.signal,
      });
      reader.opened();
      // Comments arrive as no events: they are signs of life all the same.
      for await (const events of eventsOf(response)) {
        if (ended.aborted) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(abort, SILENCE_MS);
        pause = SHORTEST_MS;
        const taken = [];
        for (const event of events) {
          if (event.id !== null) place.cursor = event.id;
          if (event.retry !== null) told = Math.min(event.retry, LONGEST_TOLD_MS);
          if (event.data) taken.push({ name: event.name, data: JSON.parse(event.data) });
        }
        if (taken.length) reader.heard(taken, place.cursor);
      }
    } catch (error) {
      if (ended.aborted) return;
      if (error instanceof ApiError) {
        failure = error;
        const next = reader.refused(error);
        if (next === "stop") return;
        if (next === "at once") continue;
        pause = Math.max(pause, error.retryAfter * 1000);
      }
    } finally {
      clearTimeout(watchdog);
      ended.removeEventListener("abort", abort);
    }
    const wait = Math.max(pause * (0.5 + Math.random() / 2), failure ? 0 : told);
    reader.broken(wait, failure);
    pause = Math.min(pause * 2, LONGEST_MS);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      ended.addEventListener("abort", () => (clearTimeout(timer), resolve(null)), { once: true });
    });
  }
}
