// Above the log: search, filters, how lines are shown, and the download.
import { useRef, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { post, PREFIX, query, segment } from "../api.js";
import { count } from "../format.js";
import { setSearch } from "../router.js";

const LEVELS = ["", "INFO", "WARNING", "ERROR"];

/** @param {any} props */
export function LogBar({ words, finder, hit, times, setTimes, wrap, setWrap, job }) {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const regex = words.get("regex") === "1";
  const find = (/** @type {Event} */ event) => {
    event.preventDefault();
    const text = field.current?.value ?? "";
    if (text) finder.run(regex ? { matches: text } : { contains: text });
    else finder.stop();
  };
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setSearch({ [name]: event.target.value });
  const said = finder.error
    ? finder.error.message
    : finder.running
      ? `${count(finder.matches.length)} hits, searched down to line ${count(finder.scannedTo)}…`
      : finder.reason
        ? `${count(finder.matches.length)} hits${finder.reason === "exhausted" ? "" : `, searched down to line ${count(finder.scannedTo)}`}`
        : "";
  return html`<form class="log-bar" onSubmit=${find} aria-label="Search and filter the log">
    <input ref=${field} type="search" data-search aria-label="Search the whole log" placeholder="Search the whole log  /" />
    <label class="check"><input type="checkbox" checked=${regex} onChange=${() => setSearch({ regex: regex ? "" : "1" })} /> Regex</label>
    <button>Search</button>
    ${finder.matches.length ? html`<button type="button" onClick=${() => hit(1)} title="Next hit (n)">Next</button><button type="button" onClick=${() => hit(-1)} title="Previous hit (N)">Previous</button>` : null}
    <span class="quiet" role="status">${said}</span>
    <span class="spring"></span>
    <select aria-label="Level and above" value=${words.get("level") ?? ""} onChange=${set("level")}>
      ${LEVELS.map((level) => html`<option value=${level}>${level ? `${level[0]}${level.slice(1).toLowerCase()} and above` : "All levels"}</option>`)}
    </select>
    <input aria-label="Rank" class="short" placeholder="Rank" inputmode="numeric" value=${words.get("rank") ?? ""} onChange=${set("rank")} />
    <input aria-label="Only lines that contain" placeholder="Only lines with…" value=${words.get(regex ? "matches" : "contains") ?? ""} onChange=${(/** @type {any} */ event) =>
      setSearch({ contains: regex ? "" : event.target.value, matches: regex ? event.target.value : "" })} />
    <button type="button" aria-pressed=${times} onClick=${() => setTimes(!times)} title="Times (t)">Times</button>
    <button type="button" aria-pressed=${wrap} onClick=${() => setWrap(!wrap)} title="Wrap (z)">Wrap</button>
    <${Download} job=${job} />
  </form>`;
}

/** A link opens a download without a header: it takes a ticket. @param {{job: any}} props */
function Download({ job }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const download = async () => {
    setBusy(true);
    try {
      const made = await post("/stream-tickets", { job_id: job.job_id, kind: "logs", format: "text" });
      const link = document.createElement("a");
      link.href = `${PREFIX}/jobs/${segment(job.job_id)}/logs${query({ format: "text", follow: "false", from: 1, ticket: made.ticket })}`;
      link.download = "";
      link.click();
      setError(null);
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return html`<button type="button" disabled=${busy} onClick=${download} title=${error?.message ?? "Download the whole log as text"}>${error ? "Download failed" : "Download"}</button>`;
}
