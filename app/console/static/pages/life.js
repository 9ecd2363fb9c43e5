// The line of a job's life: what it waited, when it ran, and when it stood still between runs.
//
// The API has a job's own times, and in its log where each run begins (`/log-marks`): a run's
// first line and the line before it are the end of one run and the beginning of the next.
import { html } from "../html.js";
import { get, query, segment } from "../api.js";
import { now } from "../clock.js";
import { count, duration, exact } from "../format.js";
import { Ago, useLoaded } from "../parts.js";
import { to } from "../router.js";

/** Runs that are told one by one: the newest. */
const RUNS_TOLD = 6;

/** @typedef {{kind: "waited" | "ran" | "stood", number?: number, from: number, to: number | null,
 *   why?: string}} Stretch times in milliseconds; `to` is null while it goes on */

/**
 * Where the newest runs begin, and how the ones before them ended.
 * @param {string} id @param {AbortSignal} signal
 * @returns {Promise<{begun: number, stopped: number | null, why: string}[]>} oldest first
 */
async function beginnings(id, signal) {
  const marks = await get(`/jobs/${segment(id)}/log-marks${query({ buckets: 1 })}`, signal);
  return Promise.all(
    marks.run_offsets.slice(-RUNS_TOLD).map(async (/** @type {number} */ offset) => {
      const from = Math.max(1, offset - 1);
      const page = await get(`/jobs/${segment(id)}/log-entries${query({ from, limit: 2 })}`, signal);
      const [before, first] = [page.entries.find(at(offset - 1)), page.entries.find(at(offset))];
      return {
        begun: Date.parse((first ?? before)?.timestamp),
        stopped: before ? Date.parse(before.timestamp) : null,
        why: before?.message ?? "",
      };
    }),
  );
}

/** @param {number} offset */
const at = (offset) => (/** @type {any} */ entry) => entry.offset === offset;

/**
 * The stretches of a life, in order. Without runs that the log tells of, the job's own times.
 * @param {any} job @param {{begun: number, stopped: number | null, why: string}[]} runs
 * @returns {Stretch[]}
 */
export function stretches(job, runs) {
  /** @type {Stretch[]} */
  const found = [];
  const started = Date.parse(job.started_at ?? "");
  const ended = job.ended_at ? Date.parse(job.ended_at) : null;
  if (Number.isNaN(started)) return [{ kind: "waited", from: Date.parse(job.created_at), to: ended }];
  found.push({ kind: "waited", from: Date.parse(job.created_at), to: started });
  const earlier = job.run_count - runs.length;
  const told = runs.filter((run) => !Number.isNaN(run.begun));
  let from = earlier > 0 && told.length ? null : started;
  told.forEach(({ begun, stopped, why }, index) => {
    const last = found.at(-1);
    if (index + earlier > 0 && stopped !== null && stopped < begun) {
      if (last?.kind === "ran") last.to = stopped;
      found.push({ kind: "stood", from: stopped, to: begun, why });
    }
    found.push({ kind: "ran", number: index + earlier + 1, from: from ?? begun, to: null });
    from = null;
  });
  if (!told.length) found.push({ kind: "ran", from: started, to: null });
  const last = /** @type {Stretch} */ (found.at(-1));
  const stands = job.status === "PAUSED" || (job.status === "QUEUED" && job.run_count > 0);
  if (stands) {
    last.to = Date.parse(job.updated_at);
    found.push({ kind: "stood", from: last.to, to: ended, why: job.message });
  } else last.to = ended;
  return found;
}

const WORDS = { waited: "waited", ran: "ran", stood: "stopped for" };
const GOES_ON = { waited: "waiting for", ran: "running for", stood: "waiting again for" };

/** @param {{job: any}} props */
export function Life({ job }) {
  // One run needs no log to be told of.
  const several = job.run_count > 1;
  const runs = useLoaded(
    (signal) => (several ? beginnings(job.job_id, signal) : Promise.resolve([])),
    [job.job_id, several ? job.run_count : 1],
  );
  const line = stretches(job, runs.value ?? []);
  const hidden = several && runs.value?.length ? job.run_count - runs.value.length : 0;
  const until = (/** @type {Stretch} */ each) => Math.max(each.from, each.to ?? now.value);
  const lasts = (/** @type {Stretch} */ each) => duration((until(each) - each.from) / 1000);
  return html`<div class="life">
    <div class="life-bar" aria-hidden="true">
      ${line.map((each) => html`<span class=${each.kind} style=${{ flexGrow: String(Math.max(1, until(each) - each.from)) }} title=${`${name(each)} ${lasts(each)}`}></span>`)}
    </div>
    <ol aria-label="The job's life">
      <li title=${exact(job.created_at)}>created <${Ago} time=${job.created_at} /></li>
      ${hidden > 0 ? html`<li>${count(hidden)} earlier ${hidden === 1 ? "run" : "runs"}</li>` : null}
      ${line.map((each) => html`<li class=${each.kind} title=${`${exact(new Date(each.from).toISOString())}${each.why ? `: ${each.why}` : ""}`}>${each.to === null && each.kind === "stood" && job.status === "PAUSED" ? "paused for" : name(each)} ${lasts(each)}</li>`)}
      ${several && !line.some((each) => each.number) ? html`<li>${count(job.run_count)} runs</li>` : null}
      ${job.ended_at ? html`<li title=${exact(job.ended_at)}>ended <${Ago} time=${job.ended_at} /></li>` : null}
      ${job.parent_job_id ? html`<li>retry of <a href=${to("jobs", job.parent_job_id)}>${job.parent_job_id}</a></li>` : null}
    </ol>
  </div>`;
}

/** @param {Stretch} each */
function name(each) {
  if (each.kind === "ran" && each.number) return each.to === null ? `run ${each.number}, for` : `run ${each.number}:`;
  return (each.to === null ? GOES_ON : WORDS)[each.kind];
}
