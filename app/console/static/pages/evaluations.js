// Evaluations: models by benchmarks, what two of them differ by, and a form to start one.
import { useEffect, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { get, post, query, segment } from "../api.js";
import { count, measure } from "../format.js";
import { changed, jobs } from "../live.js";
import { Ago, Empty, Problem, State, useLoaded } from "../parts.js";
import { search, setSearch, to } from "../router.js";
import { Comparison, scoresOf } from "./comparison.js";
import { refusedForGood, useIdempotencyKey } from "./settled.js";

const BENCHMARKS = ["perplexity", "exact_match", "multiple_choice"];
/** Evaluations whose results are fetched: the newest. */
const SHOWN = 50;

/** The newest evaluations with their results, of one job or of all. @param {string} job @param {AbortSignal} signal */
async function evaluations(job, signal) {
  const label = job ? ["type=evaluation", `job_id=${job}`] : [];
  const page = job
    ? await get(`/jobs${query({ label, page_size: SHOWN })}`, signal)
    : await get(`/evaluations${query({ page_size: SHOWN })}`, signal);
  const all = await Promise.all(
    page.jobs.map(async (/** @type {any} */ each) => {
      try {
        return { ...(await get(`/evaluations/${segment(each.job_id)}`, signal)), name: each.name };
      } catch (error) {
        // One that was deleted meanwhile is no reason to show none.
        if (/** @type {any} */ (error).status === 404) return null;
        throw error;
      }
    }),
  );
  return { all: all.filter(Boolean), total: page.total_count };
}

/** Which evaluations have changed, as far as the live state tells. */
function states() {
  void changed.value;
  return [...jobs.values()].filter((job) => job.labels?.type === "evaluation").map((job) => `${job.job_id} ${job.status}`).sort().join("\n");
}

export function Evaluations() {
  const words = search.value;
  const job = words.get("job") ?? "";
  const chosen = words.getAll("compare").slice(0, 6);
  const loaded = useLoaded((signal) => evaluations(job, signal), [job, states()]);
  const { all, total } = loaded.value ?? { all: [], total: 0 };
  const compared = chosen.map((id) => all.find((each) => each.evaluation_id === id)).filter(Boolean);
  const toggle = (/** @type {string} */ id) =>
    setSearch({ compare: chosen.includes(id) ? chosen.filter((each) => each !== id) : [...chosen, id] });
  return html`<section class="page">
    <h1>Evaluations${job ? html` <span class="quiet">of <a href=${to("jobs", job)} dir="auto">${jobs.get(job)?.name ?? job}</a> · <a href=${to("evaluations")}>all</a></span>` : null}</h1>
    <${Start} key=${`${job} ${words.get("checkpoint")}`} job=${job} checkpoint=${words.get("checkpoint") ?? ""} started=${loaded.again} />
    <${Problem} error=${loaded.error} retry=${loaded.again} />
    ${compared.length > 1 ? html`<${Comparison} all=${compared} clear=${() => setSearch({ compare: [] })} />` : null}
    ${all.length
      ? html`<${Results} all=${all} chosen=${chosen} toggle=${toggle} />
          <p class="quiet more">${total > all.length ? `The newest ${count(all.length)} of ${count(total)}. ` : ""}${compared.length > 1 ? "" : "Choose two or more to compare them."}</p>`
      : loaded.loading
        ? html`<p class="quiet" role="status">Loading the evaluations…</p>`
        : loaded.error
          ? null
          : html`<${Empty} title="No evaluations yet" text="Start one above, from a checkpoint of a job, or with the command:" command="scaimind evals submit --job JOB --benchmark perplexity" />`}
  </section>`;
}

/** What was evaluated. @param {{each: any}} props */
export function Model({ each }) {
  if (!each.job_id) return html`<bdi>${each.model_uri || each.evaluation_id}</bdi>`;
  return html`<a href=${to("jobs", each.job_id)} dir="auto">${jobs.get(each.job_id)?.name || each.job_id}</a>${each.checkpoint_id ? html` <span class="quiet">${each.checkpoint_id}</span>` : null}`;
}

/** Models by benchmarks. @param {{all: any[], chosen: string[], toggle: (id: string) => void}} props */
function Results({ all, chosen, toggle }) {
  const tables = all.map((each) => scoresOf(each));
  const columns = [...new Set(tables.flatMap((table) => [...table.keys()]))].sort();
  return html`<div class="scrolls" tabindex="0" role="region" aria-label="Results"><table class="results"><thead><tr><th scope="col"><span class="visually-hidden">Compare</span></th><th scope="col">Model</th><th scope="col">Status</th><th scope="col">Started</th>
    ${columns.map((column) => html`<th scope="col" class="number">${column}</th>`)}</tr></thead><tbody>
    ${all.map(
      (each, index) => html`<tr key=${each.evaluation_id}><td class="pick"><input type="checkbox" aria-label=${`Compare ${each.name ?? each.evaluation_id}`} checked=${chosen.includes(each.evaluation_id)} onChange=${() => toggle(each.evaluation_id)} /></td>
        <th scope="row"><${Model} each=${each} /></th>
        <td><a href=${to("jobs", each.evaluation_id)} class="bare" title="Its log"><${State} status=${each.status} /></a>${each.error_message ? html`<p class="quiet why" dir="auto">${each.error_message}</p>` : null}</td><td><${Ago} time=${each.created_at} /></td>
        ${columns.map((column) => html`<td class="number">${tables[index].has(column) ? measure(tables[index].get(column)) : ""}</td>`)}</tr>`,
    )}
  </tbody></table></div>`;
}

/** @param {{job: string, checkpoint: string, started: () => void}} props */
function Start({ job, checkpoint, started }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [body, setBody] = useState(() => ({ job, checkpoint, benchmark: "perplexity", dataset: "" }));
  const { key, renew } = useIdempotencyKey(JSON.stringify(body));
  const known = useLoaded(
    async (signal) => (body.job ? get(`/jobs/${segment(body.job)}/checkpoints${query({ page_size: 100 })}`, signal) : null),
    [body.job],
  );
  const change = (/** @type {string} */ name) => (/** @type {any} */ event) => setBody((was) => ({ ...was, [name]: event.target.value }));
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const benchmark = { name: body.benchmark, ...(body.dataset ? { dataset: body.dataset } : {}) };
      await post(
        "/evaluations",
        { job_id: body.job || undefined, checkpoint_id: body.checkpoint || undefined, benchmarks: [benchmark] },
        { "Idempotency-Key": key },
      );
      renew();
      setError(null);
      started();
    } catch (failure) {
      if (refusedForGood(failure)) renew();
      setError(failure);
    }
    setBusy(false);
  };
  const names = [...jobs.values()].filter((each) => each.labels?.type !== "evaluation").slice(0, 500);
  const [shown, setShown] = useState(Boolean(job));
  useEffect(() => setShown(Boolean(job)), [job]);
  return html`<details class="start" open=${shown}>
    <summary>Start an evaluation</summary>
    <form onSubmit=${submit}>
      <label>Job <input name="job" required list="evaluated" value=${body.job} onChange=${change("job")} /></label>
      <datalist id="evaluated">${names.map((each) => html`<option value=${each.job_id}>${each.name}</option>`)}</datalist>
      <label>Checkpoint <select name="checkpoint" value=${body.checkpoint} onChange=${change("checkpoint")}>
        <option value="">the final model</option>
        ${[...new Set([body.checkpoint, ...(known.value?.checkpoints ?? []).map((/** @type {any} */ each) => each.checkpoint_id)])].filter(Boolean).map((id) => html`<option value=${id}>${id}</option>`)}
      </select></label>
      <label>Benchmark <input name="benchmark" required list="benchmarks" value=${body.benchmark} onInput=${change("benchmark")} /></label>
      <datalist id="benchmarks">${BENCHMARKS.map((name) => html`<option value=${name}></option>`)}</datalist>
      <label>Data set <input name="dataset" placeholder="scaidrive://…" value=${body.dataset} onInput=${change("dataset")} /></label>
      <button class="primary" disabled=${busy}>${busy ? "Submitting…" : "Evaluate"}</button>
    </form>
    <${Problem} error=${error} />
  </details>`;
}
