// The keyboard: what is bound where, and one listener for all.
import { signal } from "./vendor/signals.js";
import { go, to } from "./router.js";

/** Whether the list of keys is shown. */
export const helpShown = signal(false);

/** @typedef {{keys: string, text: string, run: (event: KeyboardEvent) => void}} Binding */

/** @type {Set<Binding[]>} */
const bound = new Set();

/** @type {Binding[]} */
const ALWAYS = [
  { keys: "?", text: "Show the keys", run: () => (helpShown.value = !helpShown.value) },
  { keys: "g j", text: "Jobs", run: () => go(to("jobs")) },
  { keys: "g c", text: "Cluster", run: () => go(to("cluster")) },
  { keys: "g e", text: "Evaluations", run: () => go(to("evaluations")) },
  { keys: "g n", text: "New job", run: () => go(to("new")) },
];
bound.add(ALWAYS);

/** Bind keys until the returned function is called. @param {Binding[]} bindings */
export function bind(bindings) {
  bound.add(bindings);
  return () => bound.delete(bindings);
}

/** What is bound now, for the list. */
export const bindings = () => [...bound].flat();

let prefix = "";
let prefixedAt = 0;

export function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    // What waits behind a question hears nothing, wherever the focus is.
    if (document.querySelector("dialog:modal")) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const field = target.closest?.("input, textarea, select, [contenteditable]");
    if (field) {
      // One leaves a field before one leaves the page.
      if (event.key === "Escape") /** @type {HTMLElement} */ (field).blur();
      return;
    }
    // What has the focus is what these press.
    if ((event.key === "Enter" || event.key === " ") && target.closest?.("button, a, summary")) return;
    const chord = prefix && event.timeStamp - prefixedAt < 1500 ? `${prefix} ${event.key}` : event.key;
    prefix = "";
    const found = bindings().findLast((each) => each.keys === chord);
    if (found) {
      event.preventDefault();
      found.run(event);
      return;
    }
    if (event.key === "g") {
      prefix = "g";
      prefixedAt = event.timeStamp;
    }
  });
}
