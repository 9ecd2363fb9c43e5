// The frame: who is signed in, where one is, and whether what one sees is live.
import { useEffect, useRef } from "./vendor/hooks.js";
import { get } from "./api.js";
import { html } from "./html.js";
import { clock } from "./format.js";
import { bind, bindings, helpShown } from "./keys.js";
import { connection, signOutEverywhere, start } from "./live.js";
import { follow, go, path, to } from "./router.js";
import { exchange, expired, sessions, signIns, tenant, token, waitingCode } from "./session.js";
import { Cluster } from "./pages/cluster.js";
import { Evaluations } from "./pages/evaluations.js";
import { Job } from "./pages/job.js";
import { Jobs } from "./pages/jobs.js";
import { NewJob } from "./pages/new_job.js";
import { SignIn } from "./pages/sign_in.js";
import { Confirm, Empty } from "./parts.js";

const PAGES = [
  { name: "jobs", text: "Jobs", icon: "M2 4h12M2 8h12M2 12h8" },
  { name: "new", text: "New job", icon: "M8 3v10M3 8h10" },
  { name: "cluster", text: "Cluster", icon: "M3 3h10v4H3zM3 9h10v4H3z" },
  { name: "evaluations", text: "Evaluations", icon: "M3 13V8m5 5V3m5 10V6" },
];

export function App() {
  useEffect(() => {
    if (token.value) start();
  }, [token.value, signIns.value]);
  useEffect(() => {
    if (!token.value || tenant.value) return;
    // Whose the screen is, should another token come: no answer says it as such.
    get("/jobs?page_size=1").then((page) => (tenant.value ||= page.jobs[0]?.tenant_id ?? ""), () => {});
  }, [signIns.value]);
  useEffect(
    () =>
      bind([
        {
          keys: "/",
          text: "Search",
          run: () => /** @type {HTMLElement | null} */ (document.querySelector("[data-search]"))?.focus(),
        },
      ]),
    [],
  );
  if (!token.value) return html`<${SignIn} />`;
  const [page = "jobs"] = path.value;
  return html`<div class="frame" key=${sessions.value} onClick=${follow}>
    <a class="skip" href="#main">Skip to the content</a>
    <nav aria-label="Pages">
      ${PAGES.map(
        ({ name, text, icon }) => html`<a href=${to(name)} aria-current=${name === page ? "page" : null}>
          <svg viewBox="0 0 16 16" width="18" height="18" aria-hidden="true"><path d=${icon} fill="none" stroke="currentColor" stroke-width="1.5" /></svg>
          <span>${text}</span>
        </a>`,
      )}
    </nav>
    <header>
      <${Connection} />
      <span class="spring"></span>
      ${tenant.value ? html`<span class="quiet" title="Tenant"><bdi>${tenant.value}</bdi></span>` : null}
      <button type="button" class="plain" title="Keys (?)" onClick=${() => (helpShown.value = true)}>Keys</button>
      <button type="button" class="plain" onClick=${signOutEverywhere}>Sign out</button>
    </header>
    <main id="main" tabindex="-1"><${Page} page=${page} /></main>
    ${expired.value ? html`<${SignIn} again />` : null}
    ${waitingCode.value
      ? html`<${Confirm} title="Sign in by this link?" text="You are signed in already. The link signs you in with another session, maybe as somebody else." action="Sign in by the link"
          run=${() => exchange(waitingCode.value)} close=${() => (waitingCode.value = "")} />`
      : null}
    ${helpShown.value ? html`<${Keys} />` : null}
  </div>`;
}

/** @param {{page: string}} props */
function Page({ page }) {
  const [, id] = path.value;
  useEffect(() => {
    const names = PAGES.find((each) => each.name === page);
    document.title = id ? `${id} · ScaiMind` : `${names?.text ?? "ScaiMind"} · ScaiMind`;
  }, [page, id]);
  if (page === "jobs" && id) return html`<${Job} key=${id} id=${id} />`;
  if (page === "jobs") return html`<${Jobs} />`;
  if (page === "new") return html`<${NewJob} key=${location.search} />`;
  if (page === "cluster") return html`<${Cluster} />`;
  if (page === "evaluations") return html`<${Evaluations} />`;
  return html`<${Empty} title="There is no such page">
    <p><a href=${to("jobs")}>All jobs</a></p>
  <//>`;
}

const WORDS = {
  connecting: ["waiting", "Connecting"],
  behind: ["preparing", "Catching up"],
  live: ["good", "Live"],
  offline: ["bad", "Offline"],
  polled: ["warn", "Not live"],
};

function Connection() {
  const { state, since, next } = connection.value;
  const [colour, text] = WORDS[state];
  const since_ = state === "offline" ? ` since ${clock(new Date(since).toISOString()).slice(0, 8)}` : "";
  return html`<span class=${`connection ${colour}`} role="status">
    <svg viewBox="0 0 8 8" width="8" height="8" aria-hidden="true"><circle cx="4" cy="4" r="4" fill="currentColor" /></svg>
    ${text}${since_}${next ? html` <span class="quiet">${next}</span>` : null}
  </span>`;
}

function Keys() {
  const close = () => (helpShown.value = false);
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  return html`<dialog ref=${dialog} aria-label="Keys" onClose=${close} onClick=${close}>
    <table class="keys">
      <caption>Keys</caption>
      ${bindings().map((each) => html`<tr><td><kbd>${each.keys}</kbd></td><td>${each.text}</td></tr>`)}
    </table>
    <p class="actions"><button type="button" autofocus onClick=${close}>Close</button></p>
  </dialog>`;
}

if (path.value.length === 0) go(to("jobs") + location.search + location.hash, { replace: true });
