// The time, for what is told relative to it: once a second, and not while nobody looks.
//
// By the gateway's clock where the browser's is off by more than a network explains: "started
// two hours ago" is said of what the gateway's side has stamped.
import { signal } from "./vendor/signals.js";

/** Differences up to this are those of transit, and of a header that has whole seconds. */
const TOLERATED_MS = 5_000;

let ahead = 0;
/** Milliseconds since 1970. */
export const now = signal(Date.now());

/** Learn of the gateway's clock. @param {string | null} date of an answer (RFC 9110, 6.6.1) */
export function heardTime(date) {
  const told = Date.parse(date ?? "");
  if (Number.isNaN(told)) return;
  const difference = told - Date.now();
  const before = ahead;
  ahead = Math.abs(difference) > TOLERATED_MS ? difference : 0;
  if (Math.abs(ahead - before) > TOLERATED_MS) tick();
}

function tick() {
  now.value = Date.now() + ahead;
}

setInterval(() => document.hidden || tick(), 1000);
document.addEventListener("visibilitychange", () => document.hidden || tick());
