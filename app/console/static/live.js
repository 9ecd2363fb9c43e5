// The state of jobs, nodes and queue, live: one stream for each browser and token.
//
// Tabs with the same token share a stream: the one that holds a lock reads it and tells the
// others by a channel. Lock and channel have a digest of the token in their names, so that
// tabs share only what the same token may see. Where a page has neither (no secure context),
// each tab reads a stream of its own.
import { batch, signal } from "./vendor/signals.js";
import { digestOf, onSignOut, signOut, token } from "./session.js";
import { readEvents } from "./stream.js";

/** @typedef {Record<string, any> & {job_id: string, status: string, revision: number}} JobState */
/** @typedef {{state: "connecting" | "live" | "behind" | "offline" | "polled", since: number,
 *   next: string}} Connection */

/** Jobs by id. Mutated in place: `changed` says when. @type {Map<string, JobState>} */
export const jobs = new Map();
/** @type {Map<string, any>} */
export const nodes = new Map();
/** @type {import("./vendor/signals.js").Signal<any>} */
export const queue = signal(null);
/** Grows when `jobs` or `nodes` have changed, at most once a frame. */
export const changed = signal(0);
/** Whether the whole state has arrived once. */
export const synced = signal(false);
/** @type {import("./vendor/signals.js").Signal<Connection>} */
export const connection = signal({ state: "connecting", since: Date.now(), next: "" });

/** How far back ended jobs are shown from the start. */
export const ENDED_AFTER = "24h";
const INCLUDE = "jobs,nodes,queue";
/** What is asked for; where it is more than a stream may have, the next one. */
const SELECTIONS = [
  { include: INCLUDE, ended_after: ENDED_AFTER },
  { include: INCLUDE },
  { include: INCLUDE, status: ["PENDING", "QUEUED", "SCHEDULING", "PREPARING", "TRAINING", "CHECKPOINTING", "PAUSED", "EVALUATING", "EXPORTING"] },
];
let asked = 0;

/** Where the stream goes on, whichever tab reads it. */
const place = { cursor: "" };
/** Ids that the whole state has named since a reset. @type {Set<string> | null} */
let named = null;
/** @type {AbortController | null} */
let running = null;
/** @type {BroadcastChannel | null} */
let channel = null;
let scheduled = false;

/** Begin with the token of the session; ends what was running. */
export function start() {
  stop();
  const mine = (running = new AbortController());
  digestOf(token.value).then((digest) => {
    if (mine.signal.aborted) return;
    if (digest && navigator.locks && window.BroadcastChannel) share(digest, mine.signal);
    else follow(mine.signal);
  });
}

export function stop() {
  running?.abort();
  running = null;
  channel?.close();
  channel = null;
}

function empty() {
  stop();
  jobs.clear();
  nodes.clear();
  batch(() => {
    queue.value = null;
    synced.value = false;
    place.cursor = "";
    named = null;
    asked = 0;
    changed.value += 1;
  });
}
onSignOut(empty);

/** Sign out here and in all tabs that have the same token. */
export async function signOutEverywhere() {
  const told = channel;
  channel = null;
  told?.postMessage({ kind: "signed_out" });
  signOut();
  told?.close();
}

/** @param {string} digest @param {AbortSignal} ended */
function share(digest, ended) {
  const name = `scaimind-${digest}`;
  const own = (channel = new BroadcastChannel(name));
  let leads = false;
  own.onmessage = ({ data }) => {
    if (ended.aborted) return;
    if (data.kind === "signed_out") signOut(true);
    else if (data.kind === "hello" && leads) own.postMessage(snapshot());
    else if (data.kind === "snapshot" && !leads) restore(data);
    else if (data.kind === "events" && !leads) {
      place.cursor = data.cursor;
      take(data.events);
    } else if (data.kind === "connection" && !leads) connection.value = data.connection;
  };
  own.postMessage({ kind: "hello" });
  navigator.locks
    .request(name, { signal: ended }, async () => {
      leads = true;
      // Who asked while nobody led has had no answer.
      own.postMessage(snapshot());
      await follow(ended);
    })
    .catch(() => {});
}

function snapshot() {
  return {
    kind: "snapshot",
    jobs: [...jobs.values()],
    nodes: [...nodes.values()],
    queue: queue.value,
    synced: synced.value,
    connection: connection.value,
    cursor: place.cursor,
    // In mid-reset, what has not been named is still to go.
    named: named && [...named],
  };
}

/** @param {any} told */
function restore(told) {
  jobs.clear();
  nodes.clear();
  for (const job of told.jobs) jobs.set(job.job_id, job);
  for (const node of told.nodes) nodes.set(node.node_id, node);
  batch(() => {
    queue.value = told.queue;
    synced.value = told.synced;
    connection.value = told.connection;
    place.cursor = told.cursor;
    named = told.named && new Set(told.named);
    changed.value += 1;
  });
}

/** @param {Connection["state"]} state @param {string} [next] */
function tell(state, next = "") {
  const before = connection.value;
  const since = before.state === state ? before.since : Date.now();
  connection.value = { state, since, next };
  channel?.postMessage({ kind: "connection", connection: connection.value });
}

/** Read the stream until told to end. @param {AbortSignal} ended */
function follow(ended) {
  return readEvents(
    {
      selection: () => SELECTIONS[asked],
      opened: () => tell(synced.value ? "live" : "behind"),
      heard: (events) => {
        channel?.postMessage({ kind: "events", events, cursor: place.cursor });
        take(events);
      },
      refused: (error) => {
        if (error.status === 401) {
          tell("offline", "Sign in again.");
          return "stop";
        }
        if (error.status === 501) {
          tell("polled", error.message);
          return "stop";
        }
        if (error.status === 422 && asked < SELECTIONS.length - 1) {
          asked += 1;
          anew();
          return "at once";
        }
        if (error.status === 400) anew();
        return "later";
      },
      broken: (wait, error) => {
        const why = error && error.status >= 400 ? `${error.message} ` : "";
        tell("offline", `${why}Trying again in ${Math.ceil(wait / 1000)} s.`);
      },
    },
    place,
    ended,
  );
}

/** Begin without a place: what is not in the state that follows is gone. In all tabs. */
function anew() {
  place.cursor = "";
  const events = [{ name: "reset", data: {} }];
  channel?.postMessage({ kind: "events", events, cursor: place.cursor });
  take(events);
}

/** @param {{name: string, data: any}[]} events */
function take(events) {
  for (const { name, data } of events) {
    if (name === "job") {
      const known = jobs.get(data.job_id);
      if (!known || known.revision <= data.revision) jobs.set(data.job_id, data);
      named?.add(data.job_id);
    } else if (name === "job_gone") {
      jobs.delete(data.job_id);
    } else if (name === "reset") {
      named = new Set();
    } else if (name === "synced") {
      if (named) for (const id of [...jobs.keys()]) if (!named.has(id)) jobs.delete(id);
      named = null;
      synced.value = true;
      tell("live");
    } else if (name === "node") {
      nodes.set(data.node_id, data);
    } else if (name === "queue") {
      queue.value = data;
    }
  }
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      changed.value += 1;
    });
  }
}
