// Below a job's log and charts: what came of it, and what it was made of.
import { html } from "../html.js";
import { get, post, query, segment } from "../api.js";
import { now } from "../clock.js";
import { exact, size } from "../format.js";
import { Ago, Copy, Problem, State, useLoaded } from "../parts.js";
import { to } from "../router.js";
import { differences } from "./differences.js";
import { Files } from "./files.js";
import { ENDED } from "./job_actions.js";

const CHECKPOINTS_EVERY_MS = 20_000;

/** @param {{job: any, others: any[], ask: (question: any) => void}} props */
export function Sections({ job, others, ask }) {
  const parent = useLoaded(
    async (signal) => (job.parent_job_id ? get(`/jobs/${segment(job.parent_job_id)}`, signal) : null),
    [job.parent_job_id],
  );
  const compared = others[0] ?? parent.value;
  const path = job.output_path || job.output_config?.path;
  return html`<div class="sections">
    <${Checkpoints} job=${job} ask=${ask} />
    <section id="artefacts"><h2>Artefacts</h2>
      ${path
        ? html`<p class="path"><code>${path}</code> <${Copy} text=${path} label="Copy" /></p><${Files} uri=${path} tenant=${job.tenant_id} key=${`${path} ${job.status}`} />`
        : html`<p class="quiet">${ENDED.has(job.status) ? "None." : "They are there when the job has completed."}</p>`}
    </section>
    <${Related} job=${job} id="retries" title="Retries" words=${{ parent_job_id: job.job_id }} none=${job.status === "FAILED" || job.status === "PREEMPTED" ? "None yet." : "None."} />
    <${Related} job=${job} id="evaluations" title="Evaluations" words=${{ label: ["type=evaluation", `job_id=${job.job_id}`] }} none="None yet."
      more=${html`<p><a class="button" href=${`${to("evaluations")}${query({ job: job.job_id })}`}>Results, and a new one</a></p>`} />
    <section id="configuration"><h2>Configuration${compared ? html` <span class="quiet">what differs from <a href=${to("jobs", compared.job_id)} dir="auto">${compared.name}</a></span>` : null}</h2>
      ${compared ? html`<${Differences} a=${compared} b=${job} />` : null}
      <details open=${!compared}><summary>All of it</summary><pre class="config" tabindex="0">${JSON.stringify(configuration(job), null, 2)}</pre></details>
    </section>
  </div>`;
}

/** @param {{job: any, ask: (question: any) => void}} props */
function Checkpoints({ job, ask }) {
  // They come while it runs, and no event tells of them.
  const turn = ENDED.has(job.status) ? 0 : Math.floor(now.value / CHECKPOINTS_EVERY_MS);
  const checkpoints = useLoaded((signal) => get(`/jobs/${segment(job.job_id)}/checkpoints${query({ page_size: 100 })}`, signal), [job.job_id, job.status, turn]);
  const resume = (/** @type {any} */ checkpoint) => () =>
    ask({
      title: `Resume from step ${checkpoint.step}?`,
      text: "The job goes on from this checkpoint. Steps after it are trained again.",
      action: "Resume",
      run: () => post(`/jobs/${segment(job.job_id)}/resume`, { checkpoint_id: checkpoint.checkpoint_id }),
    });
  const rows = checkpoints.value?.checkpoints ?? [];
  return html`<section id="checkpoints"><h2>Checkpoints</h2>
    <${Problem} error=${checkpoints.error} retry=${checkpoints.again} />
    ${rows.length
      ? html`<div class="scrolls" tabindex="0" role="region" aria-label="Checkpoints"><table><thead><tr><th scope="col">Step</th><th scope="col">Saved</th><th scope="col">Size</th><th scope="col">Name</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead><tbody>
          ${rows.map(
            (/** @type {any} */ each) => html`<tr><td>${each.step}</td><td><${Ago} time=${each.created_at} /></td><td>${each.size_bytes ? size(each.size_bytes) : "–"}</td><td><code>${each.checkpoint_id}</code></td>
              <td><span class="row-actions">${job.status === "PAUSED" ? html`<button type="button" onClick=${resume(each)}>Resume from here</button>` : null}
              <a class="button" href=${`${to("new")}${query({ like: job.job_id, checkpoint: each.checkpoint_id })}`}>New job from here</a>
              <a class="button" href=${`${to("evaluations")}${query({ job: job.job_id, checkpoint: each.checkpoint_id })}`}>Evaluate</a></span></td></tr>`,
          )}</tbody></table></div>`
      : checkpoints.error
        ? null
        : html`<p class="quiet">${checkpoints.loading ? "Loading…" : "None yet."}</p>`}
  </section>`;
}

/** Jobs that came of this one, newest first. Where the coordinator cannot find them, nothing.
 * @param {{job: any, id: string, title: string, words: Record<string, unknown>, none: string, more?: any}} props */
function Related({ job, id, title, words, none, more }) {
  const found = useLoaded((signal) => get(`/jobs${query({ ...words, page_size: 100 })}`, signal), [job.job_id, job.status]);
  if (found.error?.status === 501) return more ? html`<section id=${id}><h2>${title}</h2>${more}</section>` : null;
  const rows = found.value?.jobs ?? [];
  return html`<section id=${id}><h2>${title}</h2>
    <${Problem} error=${found.error} retry=${found.again} />
    ${rows.length
      ? html`<ul class="related">${rows.map((/** @type {any} */ each) => html`<li><${State} status=${each.status} /> <a href=${to("jobs", each.job_id)} dir="auto">${each.name || each.job_id}</a> <span class="quiet" title=${exact(each.created_at)}><${Ago} time=${each.created_at} /></span></li>`)}</ul>`
      : found.error
        ? null
        : html`<p class="quiet">${found.loading ? "Loading…" : none}</p>`}
    ${found.value?.next_page_token ? html`<p class="quiet">The newest 100 of ${found.value.total_count}.</p>` : null}
    ${more}
  </section>`;
}

/** @param {any} job */
export function configuration(job) {
  const { training_config, data_config, resource_config, output_config, scheduling_config, labels } = job;
  return { training_config, data_config, resource_config, output_config, scheduling_config, labels };
}

/** @param {{a: any, b: any}} props */
export function Differences({ a, b }) {
  const rows = differences(configuration(a), configuration(b));
  if (!rows.length) return html`<p class="quiet">Nothing differs.</p>`;
  return html`<div class="scrolls" tabindex="0" role="region" aria-label="What differs"><table class="diff"><thead><tr><th scope="col">Setting</th><th scope="col" dir="auto">${a.name}</th><th scope="col" dir="auto">${b.name}</th></tr></thead><tbody>
    ${rows.map((each) => html`<tr><th scope="row"><code>${each.path}</code></th><td>${each.a}</td><td>${each.b}</td></tr>`)}
  </tbody></table></div>`;
}
