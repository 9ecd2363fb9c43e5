// Signing in: a token, where it is, and whether it counts.
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { Copy, Problem } from "../parts.js";
import { linkProblem, signIn } from "../session.js";

const COMMAND = "scaimind console";

/** @param {{again?: boolean}} props `again`: over what is on the screen, which stays */
export function SignIn({ again }) {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [keep, setKeep] = useState(true);
  useEffect(() => field.current?.focus(), []);
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await signIn(field.current?.value.trim() ?? "", keep);
    } catch (failure) {
      setError(failure);
      field.current?.select();
    }
    setBusy(false);
  };
  const form = html`<form class="sign-in" onSubmit=${submit} aria-label="Sign in">
    <h1>${again ? "Your session has ended" : "ScaiMind"}</h1>
    ${again ? html`<p>What is on the screen stays. Sign in to go on.</p>` : null}
    ${linkProblem.value ? html`<p class="problem" role="alert">${linkProblem.value}</p>` : null}
    <label for="token">API key or token</label>
    <input id="token" ref=${field} type="password" autocomplete="off" spellcheck=${false} required placeholder="sgk_…" />
    <label class="check"><input type="checkbox" checked=${keep} onChange=${(/** @type {any} */ event) => setKeep(event.target.checked)} /> Stay signed in until this tab is closed</label>
    <${Problem} error=${error} />
    <button class="primary" disabled=${busy}>${busy ? "Checking…" : "Sign in"}</button>
    <p class="quiet">No key at hand? On the machine where you use the command, run${" "}
      <code>${COMMAND}</code> <${Copy} text=${COMMAND} label="Copy" />: it opens this page signed in.${" "}
      <code>scaimind login --show</code> says where the key is.</p>
  </form>`;
  return again ? html`<${Over}>${form}<//>` : html`<main class="alone">${form}</main>`;
}

/** Over the page, which waits behind it: no key reaches it, and none closes this.
 *  @param {{children?: any}} props */
function Over({ children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const show = () => {
    // Browsers close a dialog at the second Escape, whatever the page says.
    if (dialog.current?.isConnected && !dialog.current.open) dialog.current.showModal();
  };
  useEffect(show, []);
  return html`<dialog ref=${dialog} class="over" aria-label="Sign in again" onCancel=${(/** @type {Event} */ event) => event.preventDefault()} onClose=${show}>${children}</dialog>`;
}
