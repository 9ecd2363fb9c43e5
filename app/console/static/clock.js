// The time, for what is told relative to it: once a second, and not while nobody looks.
import { signal } from "./vendor/signals.js";

/** Milliseconds since 1970. */
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) now.value = Date.now();
});
