// One job: its state, its log, its charts, and what it was made of.
import { useEffect, useMemo, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { get, post, query, segment } from "../api.js";
import { Charts } from "../charts/view.js";
import { duration, exact, size } from "../format.js";
import { bind } from "../keys.js";
import { followJob } from "../job_stream.js";
import { changed, jobs } from "../live.js";
import { filterOf, LogView } from "../log/view.js";
import { Ago, Confirm, Copy, Problem, Progress, State, useLoaded } from "../parts.js";
import { go, search, to } from "../router.js";
import { token } from "../session.js";
import { differences } from "./differences.js";
import { Actions, ENDED } from "./jobs.js";

/** @param {{id: string}} props */
export function Job({ id }) {
  const [turn, setTurn] = useState(0);
  const loaded = useLoaded((signal) => get(`/jobs/${segment(id)}`, signal), [id, turn, token.value]);
  const withIds = search.value.getAll("with").slice(0, 5);
  const others = useLoaded(
    (signal) => Promise.all(withIds.map((each) => get(`/jobs/${segment(each)}`, signal))),
    [withIds.join(" ")],
  );
  const [live, setLive] = useState("");
  const [asking, setAsking] = useState(/** @type {any} */ (null));
  const takers = useMemo(() => new Set(), [id]);
  const listen = useMemo(
    () => (/** @type {(name: string, data: any) => void} */ taker) => {
      takers.add(taker);
      return () => takers.delete(taker);
    },
    [takers],
  );
  const filter = filterOf(search.value);
  useEffect(() => {
    const controller = new AbortController();
    followJob(
      id,
      filter,
      {
        event: (name, data) => {
          for (const taker of /** @type {Set<any>} */ (takers)) taker(name, data);
          if (name === "job") setTurn((was) => was + 1);
        },
        state: setLive,
      },
      controller.signal,
    );
    return () => controller.abort();
  }, [id, JSON.stringify(filter), token.value]);
  useEffect(() => bind([{ keys: "Escape", text: "Back to the jobs", run: () => go(to("jobs")) }]), []);

  void changed.value;
  const job = loaded.value && { ...loaded.value, ...newer(loaded.value, jobs.get(id)) };
  if (!job) {
    return html`<section class="page"><${Problem} error=${loaded.error} retry=${loaded.again} />
      ${loaded.error ? html`<p><a href=${to("jobs")}>All jobs</a></p>` : html`<p class="quiet" role="status">Loading the job…</p>`}</section>`;
  }
  return html`<article class="job">
    <header class="job-head">
      <p class="crumbs"><a href=${to("jobs")}>Jobs</a> / <bdi>${job.user_id}</bdi> <span class="spring"></span> <code>${job.job_id}</code> <${Copy} text=${job.job_id} label="Copy the id" /></p>
      <div class="job-title">
        <${State} status=${job.status} />
        <h1 dir="auto">${job.name}</h1>
        <span class="spring"></span>
        <span class="row-actions"><${Actions} job=${job} ask=${setAsking} />
          <a class="button" href=${`${to("new")}?like=${encodeURIComponent(job.job_id)}`}>Again with changes</a>
          ${job.status === "FAILED" || job.status === "PREEMPTED" ? html`<${RetryWith} job=${job} ask=${setAsking} />` : null}</span>
      </div>
      <p class="now"><${Progress} job=${job} /> <span dir="auto">${job.message}</span>
        ${live && live !== "live" && !ENDED.has(job.status) ? html`<span class="bad">${live === "offline" ? "not live: trying again" : live}</span>` : null}</p>
      <${Life} job=${job} />
      ${job.error_message ? html`<pre class="problem" tabindex="0">${job.error_message}</pre>` : null}
    </header>
    <div class="job-body">
      <${LogView} job=${job} listen=${listen} />
      <${Charts} job=${job} others=${others.value ?? []} listen=${listen} />
    </div>
    <${Problem} error=${others.error} />
    <${Sections} job=${job} others=${others.value ?? []} ask=${setAsking} />
    ${asking ? html`<${Confirm} ...${asking} close=${() => setAsking(null)} />` : null}
  </article>`;
}

/** What the live state knows better. @param {any} loaded @param {any} live */
function newer(loaded, live) {
  if (!live || live.revision < loaded.revision) return {};
  const { status, message, progress, name, labels } = live;
  return { status, message, progress, name, labels };
}

/** The line of its life. @param {{job: any}} props */
function Life({ job }) {
  const points = [
    ["created", job.created_at],
    ["started", job.started_at],
    ["ended", job.ended_at],
  ].filter(([, time]) => time);
  const ran = job.started_at ? (Date.parse(job.ended_at ?? new Date().toISOString()) - Date.parse(job.started_at)) / 1000 : null;
  return html`<ol class="life">
    ${points.map(([text, time]) => html`<li title=${exact(time)}>${text} <${Ago} time=${time} /></li>`)}
    ${ran === null ? null : html`<li>${job.ended_at ? "ran" : "running for"} ${duration(ran)}</li>`}
    ${job.run_count > 1 ? html`<li>${job.run_count} runs</li>` : null}
    ${job.parent_job_id ? html`<li>retry of <a href=${to("jobs", job.parent_job_id)}>${job.parent_job_id}</a></li>` : null}
  </ol>`;
}

/** @param {{job: any, ask: (question: any) => void}} props */
function RetryWith({ job, ask }) {
  const retry = () => {
    const chosen = { gpu_count: job.resource_config?.gpu_count ?? 1 };
    ask({
      title: `Retry ${job.name} with other resources`,
      text: "A new job goes on from the newest checkpoint.",
      action: "Retry",
      children: html`<label>GPUs <input type="number" min="0" max="1024" value=${chosen.gpu_count} onInput=${(/** @type {any} */ event) => (chosen.gpu_count = Number(event.target.value))} /></label>`,
      run: async () => {
        const child = await post(`/jobs/${segment(job.job_id)}/retry`, {
          modify_resources: true,
          new_resource_config: { ...job.resource_config, gpu_count: chosen.gpu_count },
        });
        go(to("jobs", child.job_id));
      },
    });
  };
  return html`<button type="button" onClick=${retry}>Retry with…</button>`;
}

/** @param {{job: any, others: any[], ask: (question: any) => void}} props */
function Sections({ job, others, ask }) {
  const checkpoints = useLoaded((signal) => get(`/jobs/${segment(job.job_id)}/checkpoints${query({ page_size: 100 })}`, signal), [job.job_id, job.status]);
  const parent = useLoaded(
    async (signal) => (job.parent_job_id ? get(`/jobs/${segment(job.parent_job_id)}`, signal) : null),
    [job.parent_job_id],
  );
  const resume = (/** @type {any} */ checkpoint) => () =>
    ask({
      title: `Resume from step ${checkpoint.step}?`,
      text: "The job goes on from this checkpoint. Steps after it are trained again.",
      action: "Resume",
      run: () => post(`/jobs/${segment(job.job_id)}/resume`, { checkpoint_id: checkpoint.checkpoint_id }),
    });
  const artefact = job.output_path || job.output_config?.path;
  const compared = others[0] ?? parent.value;
  return html`<div class="sections">
    <section id="checkpoints"><h2>Checkpoints</h2>
      <${Problem} error=${checkpoints.error} retry=${checkpoints.again} />
      ${checkpoints.value?.checkpoints?.length
        ? html`<div class="scrolls"><table><thead><tr><th scope="col">Step</th><th scope="col">Saved</th><th scope="col">Size</th><th scope="col">Name</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead><tbody>
            ${checkpoints.value.checkpoints.map(
              (/** @type {any} */ each) => html`<tr><td>${each.step}</td><td><${Ago} time=${each.created_at} /></td><td>${each.size_bytes ? size(each.size_bytes) : "–"}</td><td><code>${each.checkpoint_id}</code></td>
                <td class="row-actions">${job.status === "PAUSED" ? html`<button type="button" onClick=${resume(each)}>Resume from here</button>` : null}
                <a class="button" href=${`${to("new")}?like=${encodeURIComponent(job.job_id)}&checkpoint=${encodeURIComponent(each.checkpoint_id)}`}>New job from here</a>
                <a class="button" href=${`${to("evaluations")}?job=${encodeURIComponent(job.job_id)}&checkpoint=${encodeURIComponent(each.checkpoint_id)}`}>Evaluate</a></td></tr>`,
            )}</tbody></table></div>`
        : html`<p class="quiet">None yet.</p>`}
    </section>
    <section id="artefacts"><h2>Artefacts</h2>
      ${artefact ? html`<p><code>${artefact}</code> <${Copy} text=${artefact} label="Copy" /></p>` : html`<p class="quiet">${ENDED.has(job.status) ? "None." : "They are there when the job has completed."}</p>`}
    </section>
    <section id="evaluations"><h2>Evaluations</h2><p><a class="button" href=${`${to("evaluations")}?job=${encodeURIComponent(job.job_id)}`}>Evaluations of this job</a></p></section>
    <section id="configuration"><h2>Configuration${compared ? html` <span class="quiet">what differs from <a href=${to("jobs", compared.job_id)} dir="auto">${compared.name}</a></span>` : null}</h2>
      ${compared ? html`<${Differences} a=${compared} b=${job} />` : null}
      <details open=${!compared}><summary>All of it</summary><pre class="config" tabindex="0">${JSON.stringify(configuration(job), null, 2)}</pre></details>
    </section>
  </div>`;
}

/** @param {any} job */
export function configuration(job) {
  const { training_config, data_config, resource_config, output_config, scheduling_config, labels } = job;
  return { training_config, data_config, resource_config, output_config, scheduling_config, labels };
}

/** @param {{a: any, b: any}} props */
function Differences({ a, b }) {
  const rows = differences(configuration(a), configuration(b));
  if (!rows.length) return html`<p class="quiet">Nothing differs.</p>`;
  return html`<div class="scrolls"><table class="diff"><thead><tr><th scope="col">Setting</th><th scope="col" dir="auto">${a.name}</th><th scope="col" dir="auto">${b.name}</th></tr></thead><tbody>
    ${rows.map((each) => html`<tr><th scope="row"><code>${each.path}</code></th><td>${each.a}</td><td>${each.b}</td></tr>`)}
  </tbody></table></div>`;
}
