// Evaluations: models by benchmarks, and a form to start one.
import { useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { get, idempotencyKey, post, segment } from "../api.js";
import { measure } from "../format.js";
import { changed } from "../live.js";
import { Ago, Empty, Problem, State, useLoaded } from "../parts.js";
import { search, to } from "../router.js";

const BENCHMARKS = ["perplexity", "mmlu", "hellaswag", "gsm8k", "humaneval"];

export function Evaluations() {
  const words = search.value;
  const job = words.get("job") ?? "";
  const loaded = useLoaded(async (signal) => {
    const page = await get(`/evaluations?page_size=100`, signal);
    const all = await Promise.all(
      page.jobs.slice(0, 50).map((/** @type {any} */ each) => get(`/evaluations/${segment(each.job_id)}`, signal).catch(() => null)),
    );
    return all.filter(Boolean);
  }, [changed.value >> 8]);
  const all = (loaded.value ?? []).filter((/** @type {any} */ each) => !job || each.job_id === job);
  return html`<section class="page">
    <h1>Evaluations${job ? html` <span class="quiet">of <a href=${to("jobs", job)}>${job}</a> · <a href=${to("evaluations")}>all</a></span>` : null}</h1>
    <${Start} job=${job} checkpoint=${words.get("checkpoint") ?? ""} started=${loaded.again} />
    <${Problem} error=${loaded.error} retry=${loaded.again} />
    ${all.length
      ? html`<${Results} all=${all} />`
      : loaded.loading
        ? html`<p class="quiet" role="status">Loading the evaluations…</p>`
        : html`<${Empty} title="No evaluations yet" text="Start one above, from a checkpoint of a job, or with the command:" command="scaimind evals submit --job JOB --benchmark perplexity" />`}
  </section>`;
}

/** Models by benchmarks. @param {{all: any[]}} props */
function Results({ all }) {
  const columns = [
    ...new Set(all.flatMap((each) => (each.results ?? []).flatMap((/** @type {any} */ result) => Object.keys(result.scores ?? {}).map((score) => `${result.name} · ${score}`)))),
  ].sort();
  const score = (/** @type {any} */ each, /** @type {string} */ column) => {
    for (const result of each.results ?? []) {
      for (const [name, value] of Object.entries(result.scores ?? {})) {
        if (`${result.name} · ${name}` === column) return /** @type {number} */ (value);
      }
    }
    return null;
  };
  return html`<div class="scrolls"><table class="results"><thead><tr><th scope="col">Model</th><th scope="col">Status</th><th scope="col">Started</th>
    ${columns.map((column) => html`<th scope="col">${column}</th>`)}</tr></thead><tbody>
    ${all.map(
      (each) => html`<tr><th scope="row" dir="auto">${each.job_id ? html`<a href=${to("jobs", each.job_id)}>${each.job_id}</a>` : (each.model_uri ?? each.evaluation_id)}${each.checkpoint_id ? html`<span class="quiet"> ${each.checkpoint_id}</span>` : null}</th>
        <td><${State} status=${each.status} /></td><td><${Ago} time=${each.created_at} /></td>
        ${columns.map((column) => html`<td class="number">${measure(score(each, column))}</td>`)}</tr>`,
    )}
  </tbody></table></div>`;
}

/** @param {{job: string, checkpoint: string, started: () => void}} props */
function Start({ job, checkpoint, started }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [key, setKey] = useState(idempotencyKey);
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    try {
      const dataset = String(form.get("dataset") ?? "");
      await post(
        "/evaluations",
        {
          job_id: form.get("job") || undefined,
          checkpoint_id: form.get("checkpoint") || undefined,
          benchmarks: [{ name: form.get("benchmark"), ...(dataset ? { dataset } : {}) }],
        },
        { "Idempotency-Key": key },
      );
      setKey(idempotencyKey());
      setError(null);
      started();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return html`<details class="start" open=${Boolean(job)}>
    <summary>Start an evaluation</summary>
    <form onSubmit=${submit}>
      <label>Job <input name="job" required defaultValue=${job} /></label>
      <label>Checkpoint <input name="checkpoint" defaultValue=${checkpoint} placeholder="the newest" /></label>
      <label>Benchmark <input name="benchmark" required list="benchmarks" defaultValue="perplexity" /></label>
      <datalist id="benchmarks">${BENCHMARKS.map((name) => html`<option value=${name}></option>`)}</datalist>
      <label>Data set <input name="dataset" placeholder="scaidrive://…" /></label>
      <button class="primary" disabled=${busy}>Evaluate</button>
      <${Problem} error=${error} />
    </form>
  </details>`;
}
