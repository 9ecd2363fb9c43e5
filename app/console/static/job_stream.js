// One job's log and metrics, live: a stream of its own while the job's page is open.
import { ApiError, query, request } from "./api.js";
import { eventsOf } from "./sse.js";

const SHORTEST_MS = 500;
const LONGEST_MS = 15_000;
const SILENCE_MS = 45_000;

/**
 * Read `GET /events` of one job until aborted. Events may come twice after a break: whoever
 * takes them drops what it has, by offset or sequence.
 * @param {string} id
 * @param {Record<string, unknown>} filter of the log's entries
 * @param {{event: (name: string, data: any) => void, state: (state: string) => void}} taker
 * @param {AbortSignal} ended
 */
export async function followJob(id, filter, taker, ended) {
  const selection = query({ job_id: id, include: "jobs,logs,metrics", tail: 200, ...filter });
  let cursor = "";
  let pause = SHORTEST_MS;
  while (!ended.aborted) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    ended.addEventListener("abort", abort);
    let watchdog = setTimeout(abort, SILENCE_MS);
    try {
      const response = await request("GET", `/events${selection}`, {
        headers: cursor ? { "Last-Event-ID": cursor } : {},
        signal: attempt.signal,
      });
      taker.state("live");
      for await (const events of eventsOf(response)) {
        clearTimeout(watchdog);
        watchdog = setTimeout(abort, SILENCE_MS);
        pause = SHORTEST_MS;
        for (const event of events) {
          if (event.id !== null) cursor = event.id;
          if (event.data) taker.event(event.name, JSON.parse(event.data));
        }
      }
    } catch (error) {
      if (ended.aborted) return;
      if (error instanceof ApiError) {
        if ([401, 403, 404, 422, 501].includes(error.status)) {
          taker.state(error.message);
          return;
        }
        if (error.status === 400) cursor = "";
        pause = Math.max(pause, error.retryAfter * 1000);
      }
    } finally {
      clearTimeout(watchdog);
      ended.removeEventListener("abort", abort);
    }
    taker.state("offline");
    const wait = pause * (0.5 + Math.random() / 2);
    pause = Math.min(pause * 2, LONGEST_MS);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      ended.addEventListener("abort", () => (clearTimeout(timer), resolve(null)), { once: true });
    });
  }
}
