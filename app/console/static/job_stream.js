// One job's log and metrics, live: a stream of its own while the job's page is open.
//
// It is not part of the stream that tabs share: that one has one selection for all tabs, and
// its place is of that selection (docs/decisions/0040-streams-of-the-console.md).
import { readEvents } from "./stream.js";

/** Answers that coming back does not change. */
const FINAL = new Set([401, 403, 404, 422, 501]);

/**
 * Read `GET /events` of one job until aborted. Events may come twice after a break: whoever
 * takes them drops what it has, by offset or sequence.
 * @param {string} id
 * @param {Record<string, unknown>} filter of the log's entries
 * @param {{event: (name: string, data: any) => void, state: (state: string) => void}} taker
 * @param {AbortSignal} ended
 */
export function followJob(id, filter, taker, ended) {
  const place = { cursor: "" };
  return readEvents(
    {
      selection: () => ({ job_id: id, include: "jobs,logs,metrics", tail: 200, ...filter }),
      opened: () => taker.state("live"),
      heard: (events) => {
        for (const { name, data } of events) taker.event(name, data);
      },
      refused: (error) => {
        if (FINAL.has(error.status)) {
          taker.state(error.message);
          return "stop";
        }
        // The place is not one of this log any more.
        if (error.status === 400) place.cursor = "";
        return "later";
      },
      broken: () => taker.state("offline"),
    },
    place,
    ended,
  );
}
