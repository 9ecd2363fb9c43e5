// A new job: a form made from the API's own schema, and the YAML of the same; either edits the other.
import { useEffect, useMemo, useState } from "../vendor/hooks.js";
import { dump, load } from "../vendor/yaml.js";
import { html } from "../html.js";
import { ApiError, ask, get, post, segment } from "../api.js";
import { count, duration, size } from "../format.js";
import { jobs } from "../live.js";
import { Problem, useLoaded } from "../parts.js";
import { go, search, to } from "../router.js";
import { tenant } from "../session.js";
import { configuration } from "./job_sections.js";
import { Fields } from "./schema_form.js";
import { refusedForGood, useIdempotencyKey, useSettled } from "./settled.js";

const TEMPLATES = {
  "Custom script": {
    name: "my-job",
    training_config: { training_type: "CONTINUED_PRETRAIN", base_model: { model_id: "none: from scratch" }, framework: { type: "CUSTOM", custom_script_path: "scaidrive://TENANT/train.py" }, hyperparameters: { steps: "1000" } },
    data_config: { sources: [{ path: "scaidrive://TENANT/corpus.jsonl" }] },
    resource_config: { gpu_count: 0 },
  },
  "LoRA fine-tuning": {
    name: "lora",
    training_config: { training_type: "LORA", base_model: { model_id: "scaiatlas://TENANT/model" }, framework: { type: "HF_TRAINER" }, hyperparameters: { learning_rate: "1e-4", num_train_epochs: "1" } },
    data_config: { sources: [{ path: "scaidrive://TENANT/corpus.jsonl" }] },
    resource_config: { gpu_count: 1 },
  },
};

export function NewJob() {
  const words = search.value;
  const like = words.get("like") ?? "";
  const schema = useLoaded(async (signal) => {
    const answer = await fetch("/v1/modules/scaimind/openapi.json", { signal });
    return (await answer.json()).components.schemas;
  }, []);
  const original = useLoaded(async (signal) => (like ? get(`/jobs/${segment(like)}`, signal) : null), [like]);
  const [text, setText] = useState(() => (like ? "" : template(TEMPLATES["Custom script"])));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const { key, renew } = useIdempotencyKey(text);
  useEffect(() => {
    if (!original.value) return;
    const body = given({ name: `${original.value.name}-2`, ...configuration(original.value) });
    const checkpoint = words.get("checkpoint");
    if (checkpoint) body.training_config.resume_from_checkpoint = checkpoint;
    setText(dump(body));
  }, [original.value]);
  const parsed = useMemo(() => {
    try {
      const value = /** @type {any} */ (load(text));
      if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error("The job must be a mapping of settings.");
      return { value, problem: "" };
    } catch (problem) {
      return { value: null, problem: problem instanceof Error ? problem.message.split("\n")[0] : String(problem) };
    }
  }, [text]);
  const check = useCheck(parsed.value);
  const sources = useSources(parsed.value?.data_config?.sources);
  const problems = new Map([...(check.details ?? []), ...(error?.details ?? [])].map((/** @type {any} */ each) => [each.field, each.message]));
  const change = (/** @type {any} */ value) => setText(dump(value));
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const made = await post("/jobs", parsed.value, { "Idempotency-Key": key });
      go(to("jobs", made.job_id));
    } catch (failure) {
      setError(failure);
      if (refusedForGood(failure)) renew();
    }
    setBusy(false);
  };
  return html`<section class="page new-job">
    <h1>New job</h1>
    <p class="templates">${like ? html`Like <a href=${to("jobs", like)}>${original.value?.name ?? like}</a>. ` : null}Start from ${Object.entries(TEMPLATES).map(
      ([name, body]) => html`<button type="button" class="plain" onClick=${() => setText(template(body))}>${name}</button>`,
    )}</p>
    <${Problem} error=${original.error ?? schema.error} />
    <form class="two-ways" onSubmit=${submit}>
      <div class="form-side">
        ${schema.value && parsed.value
          ? html`<${Fields} schemas=${schema.value} name="SubmitJobSchema" value=${parsed.value} change=${change} problems=${problems} />`
          : html`<p class="quiet">${parsed.problem ? "The form is back when the YAML can be read." : "Loading the form…"}</p>`}
        ${sources.length ? html`<section aria-label="Data"><h2>Data</h2>${sources.map((/** @type {any} */ each) => html`<${Source} key=${each.path} told=${each} />`)}</section>` : null}
      </div>
      <div class="yaml-side">
        <label for="yaml">YAML</label>
        <textarea id="yaml" spellcheck=${false} value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} aria-invalid=${Boolean(parsed.problem)}></textarea>
        ${parsed.problem ? html`<p class="bad" role="alert">${parsed.problem}</p>` : null}
      </div>
      <div class="submit-bar">
        <${Problem} error=${error} />
        ${check.warnings?.length ? html`<ul class="warn">${check.warnings.map((/** @type {string} */ each) => html`<li>${each}</li>`)}</ul>` : null}
        <button class="primary" disabled=${busy || !parsed.value}>${busy ? "Submitting…" : `Submit${outlook(check)}`}</button>
        ${check.message ? html`<span class="bad" role="status">${check.message}</span>` : null}
      </div>
    </form>
  </section>`;
}

/** A template with the caller's tenant in it, as far as a job has told it. @param {any} body */
function template(body) {
  const known = [...jobs.values()].find((job) => job.tenant_id)?.tenant_id;
  return dump(body).replaceAll("TENANT", (known ?? tenant.value) || "TENANT");
}

/** @param {any} check */
function outlook(check) {
  if (check.would_start) return ": starts now";
  if (check.waiting_for === undefined) return "";
  const wait = check.estimated_wait_seconds ? `about ${duration(check.estimated_wait_seconds)}` : "waits";
  const why = check.waiting_for.replace(/\.$/, "");
  return `: ${wait}${why ? `, ${why[0].toLowerCase()}${why.slice(1)}` : ""}`;
}

/** Leave out what is not given. @param {any} value @returns {any} */
function given(value) {
  if (Array.isArray(value)) return value.map(given);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .map(([name, each]) => [name, given(each)])
      .filter(([, each]) => each !== null && each !== "" && each !== 0 && each !== false && !(typeof each === "object" && Object.keys(each).length === 0)),
  );
}

/** What a submission would meet. @param {any} body @returns {any} */
const useCheck = (body) =>
  useSettled(
    body,
    async (signal) => {
      try {
        return await ask("POST", "/jobs?validate_only=true", { body, signal });
      } catch (error) {
        // A coordinator that cannot check without submitting says 501: then nobody knows before.
        if (!(error instanceof ApiError) || error.status === 501) return {};
        return { message: error.message, details: error.details };
      }
    },
    /** @type {any} */ ({}),
  );

/** The findings on the data sources, with their first records. @param {any} sources */
function useSources(sources) {
  const named = Array.isArray(sources) ? sources.filter((/** @type {any} */ each) => each?.path) : [];
  return useSettled(
    named.length ? named : null,
    async (signal) => {
      try {
        const found = await ask("POST", "/data/validate", { body: { data_sources: named, preview: 3 }, signal });
        return found.validations.map((/** @type {any} */ each, /** @type {number} */ index) => ({ path: named[index].path, ...each }));
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        return [{ path: "", accessible: false, error_message: error.message }];
      }
    },
    /** @type {any[]} */ ([]),
  );
}

/** @param {{told: any}} props */
function Source({ told }) {
  const good = told.accessible && !told.error_message;
  return html`<div class="source">
    <p><code>${told.path}</code> <span class=${good ? "good" : "bad"}>${good ? `${count(told.record_count)} records, ${told.format}, ${size(told.size_bytes)}` : told.error_message}</span></p>
    ${(told.preview?.records ?? []).map((/** @type {string} */ record) => html`<pre>${record}</pre>`)}
  </div>`;
}
