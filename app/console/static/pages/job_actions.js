// What can be done with a job, and with several at once.
import { useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { ask as request, post, segment } from "../api.js";
import { count } from "../format.js";
import { to } from "../router.js";

export const ENDED = new Set(["COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"]);
export const RUNNING = new Set(["SCHEDULING", "PREPARING", "TRAINING", "CHECKPOINTING", "EVALUATING", "EXPORTING"]);

/** Requests at a time, where there is one for each of many jobs. */
const AT_ONCE = 6;

/** What can be done with a job now. @param {{job: any, ask: (question: any) => void}} props */
export function Actions({ job, ask }) {
  const id = segment(job.job_id);
  const buttons = [];
  if (RUNNING.has(job.status)) {
    buttons.push({ text: "Pause", run: () => post(`/jobs/${id}/pause`) });
  }
  if (job.status === "PAUSED") buttons.push({ text: "Resume", run: () => post(`/jobs/${id}/resume`) });
  if (job.status === "FAILED" || job.status === "PREEMPTED") {
    const key = `retry-of-${job.job_id}-${job.revision}`;
    buttons.push({ text: "Retry", run: () => post(`/jobs/${id}/retry`, {}, { "Idempotency-Key": key }) });
  }
  if (!ENDED.has(job.status)) {
    buttons.push({
      text: "Cancel",
      ask: {
        title: `Cancel ${job.name}?`,
        text: RUNNING.has(job.status)
          ? "Its processes are ended. What was trained since the last checkpoint is lost."
          : "It leaves the queue and does not start.",
        action: "Cancel the job",
        danger: true,
        run: () => post(`/jobs/${id}/cancel`),
      },
    });
  }
  if (ENDED.has(job.status)) {
    buttons.push({
      text: "Delete",
      ask: {
        title: `Delete ${job.name}?`,
        text: "Its log, metrics and checkpoints are deleted for good. What it exported or registered stays.",
        action: "Delete the job",
        danger: true,
        run: () => request("DELETE", `/jobs/${id}`),
      },
    });
  }
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState("");
  const press = (/** @type {any} */ each) => {
    if (each.ask) {
      ask(each.ask);
      return;
    }
    setBusy(each.text);
    each.run().then(() => setError(null), setError).finally(() => setBusy(""));
  };
  return html`${buttons.map(
    (each) => html`<button type="button" disabled=${busy !== ""} aria-busy=${busy === each.text} onClick=${() => press(each)}>${each.text}</button>`,
  )}${error ? html`<span class="bad" role="alert" title=${error.message}>${error.message}</span>` : null}`;
}

/**
 * Do something with each job, a few at a time, and take those off the list that it was done with.
 * Throws the first failure once all were tried: what is left can be tried again.
 * @param {any[]} left @param {(job: any) => Promise<unknown>} act
 */
async function eachOf(left, act) {
  const waiting = [...left];
  /** @type {unknown[]} */
  const failures = [];
  const work = async () => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      try {
        await act(job);
        left.splice(left.indexOf(job), 1);
      } catch (failure) {
        failures.push(failure);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (failures.length) throw failures[0];
}

/** What can be done with several jobs.
 * @param {{jobs: any[], ask: (question: any) => void, clear: () => void}} props */
export function Chosen({ jobs: chosen, ask, clear }) {
  const open = chosen.filter((job) => !ENDED.has(job.status));
  const cancel = () => {
    const left = [...open];
    ask({
      title: `Cancel ${count(open.length)} jobs?`,
      text: "Their processes are ended. What was trained since the last checkpoints is lost.",
      action: `Cancel ${count(open.length)} jobs`,
      danger: true,
      children: html`<ul class="names">${open.slice(0, 20).map((job) => html`<li dir="auto">${job.name}</li>`)}${open.length > 20 ? html`<li>and ${open.length - 20} more</li>` : null}</ul>`,
      run: async () => {
        await eachOf(left, (job) => post(`/jobs/${segment(job.job_id)}/cancel`));
        clear();
      },
    });
  };
  return html`<p class="chosen" role="status">
    ${count(chosen.length)} selected
    <button type="button" disabled=${!open.length} onClick=${cancel}>Cancel…</button>
    ${chosen.length > 1 ? html`<a class="button" href=${`${to("jobs", chosen[0].job_id)}?${new URLSearchParams(chosen.slice(1, 6).map((job) => ["with", job.job_id]))}`}>Compare</a>` : null}
    <button type="button" class="plain" onClick=${clear}>Clear</button>
  </p>`;
}
