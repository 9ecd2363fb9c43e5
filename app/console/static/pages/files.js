// Files of the drive below a folder, where the gateway serves the drive.
import { useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { ask, post, query } from "../api.js";
import { size } from "../format.js";
import { Ago, Problem, useLoaded } from "../parts.js";

const DRIVE = "/v1/drive";
const PAGE = 200;

/** The path of a URI of the caller's own tenant; null of any other. @param {string} uri @param {string} tenant */
export function drivePath(uri, tenant) {
  const own = `scaidrive://${tenant}/`;
  return tenant && uri.startsWith(own) ? uri.slice(own.length).replace(/\/+$/, "") : null;
}

/** @param {string} path */
const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** @param {{uri: string, tenant: string}} props */
export function Files({ uri, tenant }) {
  const path = drivePath(uri, tenant);
  return path === null ? null : html`<${Folder} path=${path} top />`;
}

/** @param {{path: string, top?: boolean}} props */
function Folder({ path, top }) {
  const listed = useLoaded(
    (signal) => ask("GET", `/${encoded(path)}/${query({ page_size: PAGE })}`, { signal, root: DRIVE }),
    [path],
  );
  // Without a drive here the path above is all that can be told.
  if (listed.error?.status === 404) return top ? null : html`<p class="quiet">It is gone.</p>`;
  if (listed.error) return html`<${Problem} error=${listed.error} retry=${listed.again} />`;
  if (!listed.value?.entries) return html`<p class="quiet">Loading…</p>`;
  const { entries, next_page_token: more } = listed.value;
  if (!entries.length) return html`<p class="quiet">The folder is empty.</p>`;
  return html`<ul class="files">
    ${entries.map((/** @type {any} */ each) => html`<${Entry} key=${each.name} entry=${each} path=${`${path}/${each.name}`} />`)}
    ${more ? html`<li class="quiet">The first ${PAGE} of more.</li>` : null}
  </ul>`;
}

/** @param {{entry: any, path: string}} props */
function Entry({ entry, path }) {
  const [open, setOpen] = useState(false);
  const [error, setError] = useState(/** @type {any} */ (null));
  const download = async () => {
    try {
      const made = await post("/stream-tickets", { kind: "drive", path });
      const link = document.createElement("a");
      link.href = `${DRIVE}/${encoded(path)}${query({ ticket: made.ticket })}`;
      link.download = "";
      link.click();
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  if (entry.kind === "folder" && entry.addressable) {
    return html`<li><details onToggle=${(/** @type {any} */ event) => event.currentTarget === event.target && setOpen(event.currentTarget.open)}>
      <summary dir="auto">${entry.name}/</summary>${open ? html`<${Folder} path=${path} />` : null}</details></li>`;
  }
  const served = entry.kind === "file" && entry.addressable;
  return html`<li><span class="file">
    ${served ? html`<button type="button" class="plain" onClick=${download} title="Download"><bdi>${entry.name}</bdi></button>` : html`<bdi class="quiet">${entry.name}</bdi>`}
    <span class="quiet">${entry.kind === "file" ? size(entry.size_bytes) : entry.kind} · <${Ago} time=${entry.modified_at} /></span>
    ${error ? html`<span class="bad" role="alert">${error.message}</span>` : null}</span></li>`;
}
