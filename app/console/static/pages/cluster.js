// The cluster: nodes with their GPUs as cells, and the queue with its reasons.
import { useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { get, post, segment } from "../api.js";
import { count, duration, size } from "../format.js";
import { changed, connection, jobs, nodes, queue } from "../live.js";
import { Ago, Confirm, Empty, Problem, useLoaded, word } from "../parts.js";
import { to } from "../router.js";

export function Cluster() {
  void changed.value;
  const [asking, setAsking] = useState(/** @type {any} */ (null));
  // Live where the coordinator tells; asked for where it does not.
  const polled = connection.value.state === "polled";
  const loaded = useLoaded((signal) => get("/cluster/nodes?page_size=100", signal), [polled]);
  const totals = useLoaded((signal) => get("/cluster", signal), [changed.value >> 6]);
  const queued = useLoaded((signal) => get("/queue?page_size=100", signal), [polled]);
  const known = new Map((loaded.value?.nodes ?? []).map((/** @type {any} */ node) => [node.node_id, node]));
  for (const [id, node] of nodes) known.set(id, node);
  const all = [...known.values()].sort((a, b) => (a.node_id < b.node_id ? -1 : 1));
  const waiting = queue.value ?? queued.value;
  return html`<section class="page cluster">
    <h1>Cluster</h1>
    <${Problem} error=${totals.error ?? loaded.error} retry=${() => (totals.again(), loaded.again())} />
    ${totals.value ? html`<${Totals} of=${totals.value} />` : null}
    <h2>Nodes</h2>
    ${all.length
      ? html`<ul class="nodes">${all.map((node) => html`<${Node} key=${node.node_id} node=${node} ask=${setAsking} />`)}</ul>`
      : loaded.loading
        ? html`<p class="quiet" role="status">Loading the nodes…</p>`
        : html`<${Empty} title="No nodes" text="The coordinator knows none: nothing can run." />`}
    <h2>Queue</h2>
    <${Queue} queue=${waiting} error=${queue.value ? null : queued.error} />
    ${asking ? html`<${Confirm} ...${asking} close=${() => setAsking(null)} />` : null}
  </section>`;
}

/** @param {{of: any}} props */
function Totals({ of }) {
  const gpus = of.total_gpus ?? 0;
  return html`<dl class="totals">
    <div><dt>Nodes online</dt><dd>${count(of.online_nodes ?? 0)} <span class="quiet">of ${count(of.total_nodes ?? 0)}</span></dd></div>
    <div><dt>GPUs free</dt><dd>${gpus ? html`${count(of.available_gpus ?? 0)} <span class="quiet">of ${count(gpus)}</span>` : html`<span class="quiet">none here</span>`}</dd></div>
    <div><dt>In use</dt><dd>${Math.round((of.cluster_utilization ?? 0) * 100)} %</dd></div>
    <div><dt>Jobs</dt><dd>${count(of.active_jobs ?? 0)} <span class="quiet">running, ${count(of.queued_jobs ?? 0)} waiting</span></dd></div>
  </dl>`;
}

/** @param {{node: any, ask: (question: any) => void}} props */
function Node({ node, ask }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  const id = segment(node.node_id);
  const here = node.running_job_ids ?? [];
  const drain = () =>
    ask({
      title: `Drain ${node.node_id}?`,
      text: here.length
        ? `Nothing new starts there. ${count(here.length)} jobs run on it and go on until they end:`
        : "Nothing new starts there. Nothing runs on it now.",
      children: html`<ul class="names">${here.slice(0, 20).map((/** @type {string} */ each) => html`<li dir="auto">${nameOf(each)}</li>`)}</ul>`,
      action: "Drain the node",
      danger: here.length > 0,
      run: () => post(`/cluster/nodes/${id}/drain`, { reason: "drained from the console" }),
    });
  const enable = () => post(`/cluster/nodes/${id}/enable`).then(() => setError(null), setError);
  const online = node.status === "ONLINE";
  return html`<li class="node">
    <div class="node-head">
      <strong dir="auto">${node.node_id}</strong>
      <span class=${online ? "good" : "warn"}>${(node.status ?? "").toLowerCase()}</span>
      <span class="quiet">${node.hostname && node.hostname !== node.node_id ? node.hostname : ""}</span>
      <span class="spring"></span>
      <span class="quiet">${node.last_heartbeat ? html`seen <${Ago} time=${node.last_heartbeat} />` : null}</span>
      ${online ? html`<button type="button" onClick=${drain}>Drain…</button>` : html`<button type="button" onClick=${enable}>Enable</button>`}
    </div>
    <${Problem} error=${error} />
    ${node.gpus?.length
      ? html`<ul class="gpus">${node.gpus.map((/** @type {any} */ gpu, /** @type {number} */ index) => {
          const use = gpu.utilization ?? null;
          const memory = gpu.memory_used_bytes === undefined ? size(gpu.memory_bytes) : `${size(gpu.memory_used_bytes)} of ${size(gpu.memory_bytes)}`;
          return html`<li class=${!gpu.allocated ? "free" : gpu.job_id ? "held" : "taken"} title=${`${gpu.type || "GPU"} ${gpu.index ?? index}, ${memory}`}>
            <span>${gpu.index ?? index} <span class="quiet">${gpu.type}</span></span>
            <${Holder} gpu=${gpu} node=${node} />
            ${use === null ? null : html`<meter min="0" max="1" value=${use} aria-label="Utilisation" title=${`${Math.round(use * 100)} % in use`}></meter>`}
          </li>`;
        })}</ul>`
      : html`<p class="quiet">${count(node.total_cpus)} CPUs, ${count(node.allocated_cpus)} in use; ${size(node.total_memory_bytes)} of memory; no GPU</p>`}
    ${here.length ? html`<p class="here">${here.slice(0, 12).map((/** @type {string} */ each) => html`<a href=${to("jobs", each)} dir="auto">${nameOf(each)}</a>`)}${here.length > 12 ? html`<span class="quiet">and ${here.length - 12} more</span>` : null}</p>` : null}
  </li>`;
}

/** Who holds a GPU. @param {{gpu: any, node: any}} props */
function Holder({ gpu, node }) {
  if (!gpu.allocated) return html`<span class="quiet">free</span>`;
  if (gpu.job_id) return html`<a href=${to("jobs", gpu.job_id)} dir="auto" title=${nameOf(gpu.job_id)}>${nameOf(gpu.job_id)}</a>`;
  // A coordinator of an earlier version names nobody: it may be one of our jobs that run there.
  const told = (node.gpus ?? []).some((/** @type {any} */ each) => each.job_id);
  return html`<span class="quiet">${told || !(node.running_job_ids ?? []).length ? "another tenant" : "in use"}</span>`;
}

/** @param {string} id */
const nameOf = (id) => jobs.get(id)?.name || id;

/** @param {{queue: any, error: any}} props */
function Queue({ queue: told, error }) {
  if (error) return html`<${Problem} error=${error} />`;
  const rows = told?.queued_jobs ?? [];
  if (!rows.length) return html`<p class="quiet">Nothing waits.</p>`;
  return html`<div class="scrolls"><table><thead><tr><th scope="col">Place</th><th scope="col">Job</th><th scope="col">Owner</th><th scope="col">Asks for</th><th scope="col">Waiting since</th><th scope="col">Starts in about</th><th scope="col">Why</th></tr></thead><tbody>
    ${rows.map((/** @type {any} */ each) => {
      const job = jobs.get(each.job_id);
      return html`<tr><td>${each.position}</td><td><a href=${to("jobs", each.job_id)} dir="auto">${each.name || job?.name || each.job_id}</a></td>
        <td>${each.user_id ?? job?.user_id}</td><td>${each.gpu_count ? `${each.gpu_count} GPUs` : "CPUs"}</td>
        <td><${Ago} time=${each.queued_at ?? job?.created_at} /></td><td>${each.estimated_wait_seconds ? duration(each.estimated_wait_seconds) : "–"}</td><td dir="auto" title=${each.reason ? word(each.reason) : ""}>${each.message || (job?.message ?? "")}</td></tr>`;
    })}
  </tbody></table></div>`;
}
