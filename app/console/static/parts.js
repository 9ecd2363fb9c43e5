// Small parts that all pages are made of.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { ago, duration, exact } from "./format.js";
import { now } from "./clock.js";
import { onSignOut, signIns } from "./session.js";

/** Shape and colour of a state, which always come with its word. */
const STATES = {
  PENDING: ["waiting", "ring"],
  QUEUED: ["waiting", "ring"],
  SCHEDULING: ["preparing", "half"],
  PREPARING: ["preparing", "half"],
  TRAINING: ["training", "dot"],
  CHECKPOINTING: ["training", "save"],
  PAUSED: ["paused", "bars"],
  EVALUATING: ["training", "dot"],
  EXPORTING: ["training", "dot"],
  COMPLETED: ["good", "check"],
  FAILED: ["bad", "cross"],
  CANCELLED: ["muted", "slash"],
  PREEMPTED: ["warn", "arrow"],
};

const SHAPES = {
  ring: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" />`,
  half: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" /><path d="M8 3a5 5 0 0 1 0 10z" fill="currentColor" />`,
  dot: html`<circle cx="8" cy="8" r="5" fill="currentColor" />`,
  save: html`<circle cx="8" cy="8" r="5" fill="currentColor" /><circle cx="8" cy="8" r="7" fill="none" stroke="currentColor" stroke-width="1" />`,
  bars: html`<path d="M5 3v10M11 3v10" stroke="currentColor" stroke-width="3" />`,
  check: html`<path d="m3 8.5 3.2 3.2L13 5" fill="none" stroke="currentColor" stroke-width="2" />`,
  cross: html`<path d="m4 4 8 8m0-8-8 8" fill="none" stroke="currentColor" stroke-width="2" />`,
  slash: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" /><path d="m4.5 11.5 7-7" stroke="currentColor" stroke-width="2" />`,
  arrow: html`<path d="M13 8H4m4-4L4 8l4 4" fill="none" stroke="currentColor" stroke-width="2" />`,
};

/** "TRAINING" as people read it. @param {string} status */
export const word = (status) =>
  status ? status[0] + status.slice(1).toLowerCase().replaceAll("_", " ") : "Unknown";

/** @param {{status: string}} props */
export function State({ status }) {
  const [colour, shape] = STATES[/** @type {keyof typeof STATES} */ (status)] ?? ["muted", "ring"];
  const breathing = status === "TRAINING" ? " breathing" : "";
  return html`<span class=${`state ${colour}${breathing}`}>
    <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      ${SHAPES[/** @type {keyof typeof SHAPES} */ (shape)]}
    </svg>
    <span>${word(status)}</span>
  </span>`;
}

/** A time relative to now, with the exact one on hover. @param {{time?: string | null}} props */
export function Ago({ time }) {
  return html`<time datetime=${time ?? ""} title=${exact(time)}>${ago(time, now.value)}</time>`;
}

/** Where each job was when this page first saw it: what its pace is told by.
 * @type {Map<string, {step: number, at: number}>} */
const seen = new Map();
onSignOut(() => seen.clear());

/** Seconds that a job needs at its pace; null while nobody knows. @param {any} job */
function remaining(job) {
  const { step, total_steps: total } = job.progress;
  const begun = seen.get(job.job_id);
  if (job.status !== "TRAINING" || !begun || step < begun.step) {
    seen.set(job.job_id, { step, at: now.value });
    return null;
  }
  const seconds = (now.value - begun.at) / 1000;
  if (seconds < 5 || step === begun.step) return null;
  return ((total - step) * seconds) / (step - begun.step);
}

/** @param {{job: any}} props */
export function Progress({ job }) {
  const { progress } = job;
  if (!progress?.total_steps) return html`<span class="quiet">–</span>`;
  const share = Math.min(1, Math.max(0, progress.step / progress.total_steps));
  const percent = Math.floor(share * 100);
  const left = remaining(job);
  return html`<span class="progress">
    <progress max="1" value=${share} aria-label="Progress"></progress>
    <span>${percent} %${left !== null && left > 0 ? html`<span class="quiet"> · ${duration(left)} left</span>` : null}</span>
  </span>`;
}

/** Points as a line of 80 x 20. @param {{values: (number | null)[], label: string}} props */
export function Sparkline({ values, label }) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null && Number.isFinite(value)));
  if (known.length < 2) return html`<span class="quiet">–</span>`;
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const height = (/** @type {number} */ value) =>
    most === least ? 10 : 18 - ((value - least) / (most - least)) * 16;
  let path = "";
  let drawn = false;
  values.forEach((value, index) => {
    if (value === null || !Number.isFinite(value)) {
      drawn = false;
      return;
    }
    const x = ((index / (values.length - 1)) * 78 + 1).toFixed(1);
    path += `${drawn ? "L" : "M"}${x} ${height(value).toFixed(1)}`;
    drawn = true;
  });
  return html`<svg class="sparkline" viewBox="0 0 80 20" width="80" height="20" role="img" aria-label=${label}>
    <path d=${path} fill="none" stroke="currentColor" stroke-width="1.25" />
  </svg>`;
}

/** What went wrong, what to do, and the id to ask about. @param {{error: any, retry?: () => void}} props */
export function Problem({ error, retry }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <p>${error.message ?? String(error)}</p>
    ${error.details?.length
      ? html`<ul>${error.details.map((/** @type {any} */ each) => html`<li><code>${each.field}</code> ${each.message}</li>`)}</ul>`
      : null}
    <p class="actions">
      ${retry ? html`<button type="button" onClick=${retry}>Try again</button>` : null}
      ${error.requestId ? html`<${Copy} text=${error.requestId} label=${`Request ${error.requestId}`} />` : null}
    </p>
  </div>`;
}

/** A page or list with nothing in it, and the command that fills it.
 *  @param {{title: string, text?: string, command?: string, children?: any}} props */
export function Empty({ title, text, command, children }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    ${text ? html`<p>${text}</p>` : null}
    ${command ? html`<p class="command"><code>${command}</code> <${Copy} text=${command} label="Copy" /></p>` : null}
    ${children}
  </div>`;
}

/** @param {{text: string, label: string}} props */
export function Copy({ text, label }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    } catch {
      // No secure context, or not allowed: the text is on the screen to be selected.
    }
  };
  return html`<button type="button" class="plain" onClick=${copy}>${copied ? "Copied" : label}</button>`;
}

/** A question before something is lost. @param {{title: string, text: string, action: string,
 *  danger?: boolean, run: () => Promise<void>, close: () => void, children?: any}} props */
export function Confirm({ title, text, action, danger, run, close, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const confirm = async () => {
    setBusy(true);
    try {
      await run();
      close();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="confirm-title">
    <h2 id="confirm-title">${title}</h2>
    <p>${text}</p>
    ${children}
    <${Problem} error=${error} />
    <p class="actions">
      <button type="button" autofocus onClick=${close}>Keep as it is</button>
      <button type="button" class=${danger ? "danger" : "primary"} disabled=${busy} onClick=${confirm}>${action}</button>
    </p>
  </dialog>`;
}

/**
 * Rows of one height, of which only those in sight are there.
 * @param {{count: number, height: number, row: (index: number) => any, label: string,
 *   header?: any, class?: string, onRange?: (first: number, last: number) => void}} props
 *   `onRange` hears which rows are there, the last one excluded
 */
export function VirtualRows({ count, height, row, label, header, class: name, onRange }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [range, setRange] = useState({ first: 0, last: 40 });
  useEffect(() => {
    const measure = () => {
      const top = box.current?.getBoundingClientRect().top ?? 0;
      const first = Math.max(0, Math.floor(-top / height) - 8);
      const last = first + Math.ceil(innerHeight / height) + 16;
      setRange((was) => (was.first === first && was.last === last ? was : { first, last }));
    };
    measure();
    addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => {
      removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, [height, count]);
  const first = Math.min(range.first, Math.max(0, count - 1));
  const last = Math.min(range.last, count);
  useEffect(() => onRange?.(first, last), [first, last]);
  const rows = [];
  for (let index = first; index < last; index += 1) rows.push(row(index));
  return html`<div class=${`rows ${name ?? ""}`} role="table" aria-label=${label} aria-rowcount=${count}>
    ${header}
    <div ref=${box} class="rows-space" role="rowgroup" style=${{ height: `${count * height}px` }}>
      <div class="rows-shown" style=${{ transform: `translateY(${first * height}px)` }}>${rows}</div>
    </div>
  </div>`;
}

/** Load what a function returns, again when `inputs` change.
 * @template T @param {(signal: AbortSignal) => Promise<T>} load @param {any[]} inputs
 * @returns {{value: T | null, error: any, loading: boolean, again: () => void}} */
export function useLoaded(load, inputs) {
  const [state, setState] = useState(
    /** @type {{value: T | null, error: any, loading: boolean}} */ ({ value: null, error: null, loading: true }),
  );
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    setState((was) => ({ ...was, loading: true }));
    load(controller.signal).then(
      (value) => controller.signal.aborted || setState({ value, error: null, loading: false }),
      (error) => controller.signal.aborted || setState((was) => ({ ...was, error, loading: false })),
    );
    return () => controller.abort();
  }, [...inputs, turn, signIns.value]);
  return { ...state, again: () => setTurn((was) => was + 1) };
}
