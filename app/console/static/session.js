// Who is signed in: a token in memory and, if asked, in sessionStorage; never in an address.
import { signal } from "./vendor/signals.js";
import { ApiError, ask, useSession } from "./api.js";

const STORED = "scaimind-token";

/** The token; empty when nobody is signed in. */
export const token = signal(sessionStorage.getItem(STORED) ?? "");
/** The caller's tenant, once an answer has told it. */
export const tenant = signal("");
/** Set when a token that was good has been refused: what is on the screen stays. */
export const expired = signal(false);
/** Why signing in by a link did not work. */
export const linkProblem = signal("");

/** @type {Set<() => void>} */
const leaving = new Set();

/** Have `empty` called when the session ends: nothing of it may stay. @param {() => void} empty */
export function onSignOut(empty) {
  leaving.add(empty);
}

useSession({
  token: () => token.value,
  refused: () => {
    if (token.value) expired.value = true;
  },
});

/**
 * Try a token out, and take it. Throws `ApiError`.
 * @param {string} given
 * @param {boolean} keep whether a reload finds it again
 */
export async function signIn(given, keep) {
  await ask("GET", "/summary", { token: given });
  take(given, keep);
}

/** @param {string} given @param {boolean} keep */
function take(given, keep) {
  const another = token.value !== "" && token.value !== given;
  if (another) for (const empty of leaving) empty();
  if (keep) sessionStorage.setItem(STORED, given);
  else sessionStorage.removeItem(STORED);
  token.value = given;
  expired.value = false;
}

/** Exchange the code of `scaimind console`, which stands in the address's fragment. */
export async function signInFromAddress() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const session = await ask("POST", "/console-sessions", { body: { code }, token: "" });
    take(session.token, true);
  } catch (error) {
    linkProblem.value = error instanceof ApiError ? error.message : String(error);
  }
}

/** End the session in this tab; `told` when another tab did it for all. @param {boolean} [told] */
export function signOut(told = false) {
  const ended = token.value;
  token.value = "";
  expired.value = false;
  sessionStorage.removeItem(STORED);
  for (const empty of leaving) empty();
  if (!told && ended.startsWith("sgc_")) {
    ask("DELETE", "/console-sessions/current", { token: ended }).catch(() => {});
  }
  return ended;
}

/** A digest of the token, by which tabs find others with the same one. @param {string} secret */
export async function digestOf(secret) {
  if (!crypto.subtle) return "";
  const bytes = new TextEncoder().encode(`console:${secret}`);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
