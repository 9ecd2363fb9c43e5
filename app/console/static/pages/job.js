// One job: its state, its log, its charts, and what it was made of.
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { get, post, segment } from "../api.js";
import { Charts } from "../charts/view.js";
import { bind } from "../keys.js";
import { followJob } from "../job_stream.js";
import { changed, jobs } from "../live.js";
import { filterOf, LogView } from "../log/view.js";
import { Confirm, Copy, Problem, Progress, State, useLoaded } from "../parts.js";
import { go, search, to } from "../router.js";
import { signIns } from "../session.js";
import { Actions, ENDED } from "./job_actions.js";
import { Sections } from "./job_sections.js";
import { Life } from "./life.js";
import { useIdempotencyKey } from "./settled.js";

/** @param {{id: string}} props */
export function Job({ id }) {
  const [turn, setTurn] = useState(0);
  const loaded = useLoaded((signal) => get(`/jobs/${segment(id)}`, signal), [id, turn]);
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
  const told = useRef("");
  const [own, setOwn] = useState(/** @type {any} */ (null));
  const filter = filterOf(search.value);
  useEffect(() => {
    const controller = new AbortController();
    followJob(
      id,
      filter,
      {
        event: (name, data) => {
          for (const taker of /** @type {Set<any>} */ (takers)) taker(name, data);
          if (name !== "job") return;
          setOwn(data);
          // The rest of a job changes with its state.
          const state = `${data.status} ${data.name} ${JSON.stringify(data.labels)}`;
          if (state !== told.current) setTurn((was) => was + 1);
          told.current = state;
        },
        state: setLive,
      },
      controller.signal,
    );
    return () => controller.abort();
  }, [id, JSON.stringify(filter), signIns.value]);
  useEffect(() => bind([{ keys: "Escape", text: "Back to the jobs", run: () => go(to("jobs")) }]), []);

  void changed.value;
  const job = [own, jobs.get(id)].reduce(newer, loaded.value);
  if (!job) {
    return html`<section class="page"><${Problem} error=${loaded.error} retry=${loaded.again} />
      ${loaded.error ? html`<p><a href=${to("jobs")}>All jobs</a></p>` : html`<p class="quiet" role="status">Loading the job…</p>`}</section>`;
  }
  return html`<article class="job">
    <header class="job-head">
      <p class="crumbs"><a href=${to("jobs")}>Jobs</a> / <bdi>${job.user_id}</bdi> <span class="spring"></span> <code>${job.job_id}</code> <${Copy} text=${job.job_id} label="Copy the id" /></p>
      <div class="job-title">
        <${State} status=${job.status} />
        <h1 dir="auto" title=${job.name}>${job.name}</h1>
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

/** A job with what a live state knows better. @param {any} job @param {any} live */
function newer(job, live) {
  if (!job || !live || live.job_id !== job.job_id || live.revision < job.revision) return job;
  const { status, message, progress, name, labels, updated_at, ended_at, revision } = live;
  return { ...job, status, message, progress, name, labels, updated_at, ended_at, revision };
}

/** @param {{job: any, ask: (question: any) => void}} props */
function RetryWith({ job, ask }) {
  const { key } = useIdempotencyKey(`${job.job_id} ${job.revision}`);
  const retry = () => {
    const chosen = { gpu_count: job.resource_config?.gpu_count ?? 1 };
    ask({
      title: `Retry ${job.name} with other resources`,
      text: "A new job goes on from the newest checkpoint.",
      action: "Retry",
      children: html`<label>GPUs <input type="number" min="0" max="1024" value=${chosen.gpu_count} onInput=${(/** @type {any} */ event) => (chosen.gpu_count = Number(event.target.value))} /></label>`,
      run: async () => {
        const body = { modify_resources: true, new_resource_config: { ...job.resource_config, gpu_count: chosen.gpu_count } };
        const child = await post(`/jobs/${segment(job.job_id)}/retry`, body, { "Idempotency-Key": `${key}-${chosen.gpu_count}` });
        go(to("jobs", child.job_id));
      },
    });
  };
  return html`<button type="button" onClick=${retry}>Retry with…</button>`;
}
