// The table of jobs: live, filtered by words in the address.
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { signal } from "../vendor/signals.js";
import { html } from "../html.js";
import { get, query, segment } from "../api.js";
import { now } from "../clock.js";
import { count, duration, measure } from "../format.js";
import { bind } from "../keys.js";
import { changed, connection, ENDED_AFTER, jobs, queue, synced } from "../live.js";
import { Ago, Confirm, Empty, Problem, Progress, Sparkline, State, VirtualRows, word } from "../parts.js";
import { go, search, setSearch, to } from "../router.js";
import { onSignOut, tenant } from "../session.js";
import { Actions, Chosen, RUNNING } from "./job_actions.js";

const WAITING = new Set(["PENDING", "QUEUED"]);
const STATUSES = ["QUEUED", "PREPARING", "TRAINING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"];
/** Where the coordinator does not tell of changes. */
const POLLED_EVERY_MS = 5_000;
const SUMMARY_EVERY_MS = 10_000;
const SUMMARIES_AT_ONCE = 50;
/** So that rows that are only scrolled past ask for nothing. */
const LOOKED_AT_AFTER_MS = 300;

/** Jobs that ended before the live selection begins, as pages of the list have them. @type {Map<string, any>} */
const older = new Map();
const olderToken = signal(/** @type {string | null} */ (""));
/** Losses by job. @type {Map<string, (number | null)[]>} */
const losses = new Map();
/** GPUs by job. @type {Map<string, any>} */
const details = new Map();
const extras = signal(0);
onSignOut(() => {
  older.clear();
  losses.clear();
  details.clear();
  olderToken.value = "";
});

/** @param {any} job @param {URLSearchParams} words */
function fits(job, words) {
  const statuses = words.getAll("status");
  if (statuses.length && !statuses.includes(job.status)) return false;
  const owner = words.get("user");
  if (owner && job.user_id !== owner) return false;
  for (const label of words.getAll("label")) {
    const equals = label.indexOf("=");
    const [key, value] = equals < 0 ? [label, null] : [label.slice(0, equals), label.slice(equals + 1)];
    if (!Object.hasOwn(job.labels ?? {}, key)) return false;
    if (value !== null && job.labels[key] !== value) return false;
  }
  const text = words.get("q")?.toLowerCase();
  return !text || `${job.name} ${job.job_id} ${job.user_id}`.toLowerCase().includes(text);
}

export function Jobs() {
  const words = search.value;
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [active, setActive] = useState(0);
  const [asking, setAsking] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const all = useMemo(() => {
    const known = new Map(older);
    for (const [id, job] of jobs) known.set(id, job);
    return [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  }, [changed.value, extras.value]);
  const shown = useMemo(() => all.filter((job) => fits(job, words)), [all, words.toString()]);
  const current = useRef({ shown, active });
  current.current = { shown, active };
  const onRange = useExtras(shown);
  useEffect(() => {
    const move = (/** @type {number} */ by) => () => {
      const most = current.current.shown.length - 1;
      const next = Math.max(0, Math.min(most, current.current.active + by));
      setActive(next);
      document.querySelector(`[data-row="${next}"]`)?.scrollIntoView({ block: "nearest" });
    };
    return bind([
      { keys: "j", text: "Next row", run: move(1) },
      { keys: "k", text: "Previous row", run: move(-1) },
      {
        keys: "Enter",
        text: "Open the job",
        run: () => {
          const job = current.current.shown[current.current.active];
          if (job) go(to("jobs", job.job_id));
        },
      },
      {
        keys: "x",
        text: "Select the row",
        run: () => {
          const job = current.current.shown[current.current.active];
          if (job) toggle(job.job_id);
        },
      },
    ]);
  }, []);
  const toggle = (/** @type {string} */ id) =>
    setSelected((was) => {
      const next = new Set(was);
      if (!next.delete(id)) next.add(id);
      return next;
    });
  const loadOlder = async () => {
    try {
      const page = await get(`/jobs${query({ page_size: 100, page_token: olderToken.value || "" })}`);
      for (const job of page.jobs) if (!jobs.has(job.job_id)) older.set(job.job_id, job);
      olderToken.value = page.next_page_token || null;
      extras.value += 1;
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    if (connection.value.state !== "polled") return undefined;
    const controller = new AbortController();
    const load = () =>
      get(`/jobs${query({ page_size: 100 })}`, controller.signal).then((page) => {
        for (const job of page.jobs) older.set(job.job_id, job);
        if (olderToken.value === "") olderToken.value = page.next_page_token || null;
        extras.value += 1;
        setError(null);
      }, (failure) => controller.signal.aborted || setError(failure));
    load();
    const timer = setInterval(() => document.hidden || load(), POLLED_EVERY_MS);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [connection.value.state]);
  const chosen = all.filter((job) => selected.has(job.job_id));
  const row = (/** @type {number} */ index) =>
    html`<${Row} key=${shown[index].job_id} job=${shown[index]} index=${index} active=${index === active}
      selected=${selected.has(shown[index].job_id)} toggle=${toggle} ask=${setAsking} />`;
  return html`<section class="jobs" aria-label="Jobs">
    <h1 class="visually-hidden">Jobs</h1>
    <${Answers} all=${all} />
    <${Filters} words=${words} all=${all} />
    ${chosen.length ? html`<${Chosen} jobs=${chosen} ask=${setAsking} clear=${() => setSelected(new Set())} />` : null}
    <${Problem} error=${error} retry=${loadOlder} />
    ${shown.length
      ? html`<${VirtualRows} class="job-rows" label="Jobs" count=${shown.length} height=${44} row=${row} header=${HEADER} onRange=${onRange} />`
      : html`<${None} filtered=${all.length > 0} />`}
    ${olderToken.value === null
      ? null
      : html`<p class="more"><button type="button" onClick=${loadOlder}>Show jobs that ended more than ${ENDED_AFTER} ago</button></p>`}
    ${asking ? html`<${Confirm} ...${asking} close=${() => setAsking(null)} />` : null}
  </section>`;
}

const HEADER = html`<div class="row head" role="row">
  <span role="columnheader"><span class="visually-hidden">Select</span></span>
  <span role="columnheader">Status</span><span role="columnheader">Name</span>
  <span role="columnheader">Progress</span><span role="columnheader">Loss</span>
  <span role="columnheader">GPUs</span><span role="columnheader">Age</span>
  <span role="columnheader"><span class="visually-hidden">Actions</span></span>
</div>`;

/** @param {{filtered: boolean}} props */
function None({ filtered }) {
  if (!synced.value && connection.value.state !== "polled") return html`<p class="quiet" role="status">Loading the jobs…</p>`;
  if (filtered) {
    return html`<${Empty} title="No job fits these filters">
      <p><button type="button" onClick=${() => setSearch({ q: "", status: [], user: "", label: [] })}>Clear the filters</button></p>
    <//>`;
  }
  return html`<${Empty} title="No jobs yet" text="Start one from the form, or with the command:" command="scaimind jobs submit train.py --data corpus.jsonl --gpus 1">
    <p><a class="button primary" href=${to("new")}>New job</a></p>
  <//>`;
}

/** The three questions that are asked first. @param {{all: any[]}} props */
function Answers({ all }) {
  const [running, waiting] = useMemo(
    () => [all.filter((job) => RUNNING.has(job.status)).length, all.filter((job) => WAITING.has(job.status))],
    [all],
  );
  const since = now.value - 24 * 3600 * 1000;
  const failed = all.filter((job) => job.status === "FAILED" && Date.parse(job.ended_at ?? job.updated_at) > since).length;
  const first = queue.value?.queued_jobs?.[0];
  const why = first?.message || waiting.find((job) => job.job_id === first?.job_id)?.message || waiting.at(-1)?.message;
  return html`<p class="answers">
    <a href="?status=SCHEDULING&status=PREPARING&status=TRAINING&status=CHECKPOINTING&status=EVALUATING&status=EXPORTING"><strong>${count(running)}</strong> running</a>
    <a href="?status=QUEUED"><strong>${count(waiting.length)}</strong> waiting</a>
    ${waiting.length && why ? html`<span class="quiet why">${why.replace(/\.$/, "")}${first?.estimated_wait_seconds ? `, about ${duration(first.estimated_wait_seconds)}` : ""}</span>` : null}
    <a href="?status=FAILED" class=${failed ? "bad" : ""}><strong>${count(failed)}</strong> failed since yesterday</a>
  </p>`;
}

/** @param {{words: URLSearchParams, all: any[]}} props */
function Filters({ words, all }) {
  const owners = useMemo(() => [...new Set(all.map((job) => job.user_id).filter(Boolean))].sort(), [all]);
  const chosen = words.getAll("status");
  const onText = (/** @type {any} */ event) => setSearch({ q: event.target.value });
  const onStatus = (/** @type {string} */ status) => () =>
    setSearch({ status: chosen.includes(status) ? chosen.filter((each) => each !== status) : [...chosen, status] });
  return html`<form class="filters" role="search" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    <input type="search" data-search aria-label="Search name, id, owner" placeholder="Search  /" value=${words.get("q") ?? ""} onInput=${onText} />
    <span class="chips" role="group" aria-label="Status">
      ${STATUSES.map((status) => html`<button type="button" aria-pressed=${chosen.includes(status)} onClick=${onStatus(status)}>${word(status)}</button>`)}
    </span>
    <select aria-label="Owner" value=${words.get("user") ?? ""} onChange=${(/** @type {any} */ event) => setSearch({ user: event.target.value })}>
      <option value="">Everyone</option>
      ${owners.map((owner) => html`<option value=${owner}>${owner}</option>`)}
    </select>
    ${words.getAll("label").map(
      (label) => html`<button type="button" class="chip" onClick=${() => setSearch({ label: words.getAll("label").filter((each) => each !== label) })}>${label} ×</button>`,
    )}
  </form>`;
}

/** @param {{job: any, index: number, active: boolean, selected: boolean, toggle: (id: string) => void, ask: (question: any) => void}} props */
function Row({ job, index, active, selected, toggle, ask }) {
  const more = details.get(job.job_id);
  const loss = losses.get(job.job_id) ?? [];
  const gpus = more?.resource_config?.gpu_count ?? job.resource_config?.gpu_count;
  return html`<div class=${`row${active ? " active" : ""}`} role="row" data-row=${index} aria-selected=${selected} aria-rowindex=${index + 1}>
    <span role="cell"><input type="checkbox" aria-label=${`Select ${job.name}`} checked=${selected} onChange=${() => toggle(job.job_id)} /></span>
    <span role="cell"><${State} status=${job.status} /></span>
    <span role="cell" class="two">
      <a href=${to("jobs", job.job_id)} dir="auto" title=${job.name}>${job.name}</a>
      <span class="quiet"><bdi>${job.user_id}</bdi>${Object.entries(job.labels ?? {}).slice(0, 3).map(
        ([key, value]) => html` <button type="button" class="label" onClick=${() => setSearch({ label: [...search.value.getAll("label"), `${key}=${value}`] })}>${key}=${value}</button>`,
      )}</span>
    </span>
    <span role="cell" class="two"><${Progress} job=${job} /><span class="quiet" title=${job.message} dir="auto">${job.message}</span></span>
    <span role="cell" class="loss"><${Sparkline} values=${loss} label=${`Loss ${measure(job.progress?.loss)}`} /></span>
    <span role="cell">${gpus ?? "–"}</span>
    <span role="cell"><${Ago} time=${job.created_at} /></span>
    <span role="cell" class="row-actions"><${Actions} job=${job} ask=${ask} /></span>
  </div>`;
}

/**
 * Bring losses and GPUs of the jobs in sight.
 * @param {any[]} shown
 * @returns {(first: number, last: number) => void} what is to hear which rows are in sight
 */
function useExtras(shown) {
  const [wanted, setWanted] = useState(/** @type {string[]} */ ([]));
  const sight = useRef({ shown, first: 0, last: SUMMARIES_AT_ONCE });
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  sight.current.shown = shown;
  const look = () => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      const { shown: rows, first, last } = sight.current;
      const ids = rows.slice(first, Math.min(last, first + SUMMARIES_AT_ONCE)).map((job) => job.job_id);
      setWanted((was) => (was.join(" ") === ids.join(" ") ? was : ids));
    }, LOOKED_AT_AFTER_MS);
  };
  useEffect(look, [shown]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const names = wanted.join(" ");
  useEffect(() => {
    if (!wanted.length) return undefined;
    const controller = new AbortController();
    const load = async () => {
      if (document.hidden) return;
      try {
        const told = await get(`/metrics-summary${query({ job_id: wanted, key: "loss", points: 60 })}`, controller.signal);
        for (const each of told.jobs) losses.set(each.job_id, each.series?.y ?? []);
        extras.value += 1;
      } catch {
        // The table says all else without it; the next turn tries again.
      }
    };
    load();
    const timer = setInterval(load, SUMMARY_EVERY_MS);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [names]);
  useEffect(() => {
    const controller = new AbortController();
    (async () => {
      for (const id of wanted) {
        if (details.has(id)) continue;
        try {
          const job = await get(`/jobs/${segment(id)}`, controller.signal);
          details.set(id, job);
          tenant.value = job.tenant_id;
        } catch {
          return;
        }
      }
      extras.value += 1;
    })();
    return () => controller.abort();
  }, [names]);
  return (first, last) => {
    Object.assign(sight.current, { first, last });
    look();
  };
}
