// Addresses: every one below /console is a page's, and says all that the page shows.
import { computed, signal } from "./vendor/signals.js";

const BASE = "/console";

const at = signal(location.pathname + location.search + location.hash);
addEventListener("popstate", () => {
  at.value = location.pathname + location.search + location.hash;
});

/** The segments after /console, decoded. */
export const path = computed(() => {
  const [pathname] = at.value.split(/[?#]/);
  const below = pathname.startsWith(BASE) ? pathname.slice(BASE.length) : "";
  return below.split("/").filter(Boolean).map(decoded);
});
export const search = computed(() => {
  const question = at.value.split("#")[0].indexOf("?");
  return new URLSearchParams(question < 0 ? "" : at.value.split("#")[0].slice(question));
});
export const fragment = computed(() => {
  const hash = at.value.indexOf("#");
  return hash < 0 ? "" : decoded(at.value.slice(hash + 1));
});

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a page. @param {...string} segments */
export const to = (...segments) => [BASE, ...segments.map(encodeURIComponent)].join("/");

/** Go to an address of the console. @param {string} address @param {{replace?: boolean}} [how] */
export function go(address, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  at.value = location.pathname + location.search + location.hash;
  if (!replace && !location.hash) scrollTo(0, 0);
}

/** Change words of the query in place. @param {Record<string, string | string[]>} changes */
export function setSearch(changes) {
  const words = new URLSearchParams(search.value);
  for (const [name, value] of Object.entries(changes)) {
    words.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) if (each) words.append(name, each);
  }
  const text = words.toString();
  go(location.pathname + (text ? `?${text}` : "") + location.hash, { replace: true });
}

/** Follow a link within the console without loading the page anew. @param {MouseEvent} event */
export function follow(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey) return;
  if (event.shiftKey || event.altKey) return;
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  if (!link || link.target || link.origin !== location.origin) return;
  if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
  event.preventDefault();
  go(link.pathname + link.search + link.hash);
}
