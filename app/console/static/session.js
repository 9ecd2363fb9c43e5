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

/** Grows when another person's session begins: what the last one's has on the screen goes. */
export const sessions = signal(0);
/** Grows with every token that is taken, also when it is the same: what failed is tried again. */
export const signIns = signal(0);
/** Whose answers may still be shown: another number after each end of a session. */
let owner = 0;
/** A code that waits for a yes, since somebody is signed in already. */
export const waitingCode = signal("");

/** @type {Set<() => void>} */
const leaving = new Set([() => (tenant.value = "")]);

/** Have `empty` called when the session ends: nothing of it may stay. @param {() => void} empty */
export function onSignOut(empty) {
  leaving.add(empty);
}

useSession({
  token: () => token.value,
  owner: () => owner,
  refused: (refused) => {
    // One that was replaced meanwhile says nothing about its successor.
    if (token.value && refused === token.value) expired.value = true;
  },
});

/**
 * Try a token out, and take it. Throws `ApiError`.
 * @param {string} given
 * @param {boolean} keep whether a reload finds it again
 */
export async function signIn(given, keep) {
  if (!/^[\x21-\x7e]+$/.test(given)) {
    throw new ApiError(0, "NO_TOKEN", "That is no token: it has characters that no token has.");
  }
  await ask("GET", "/summary", { token: given });
  await take(given, keep);
}

/** @param {string} given @param {boolean} keep */
async function take(given, keep) {
  if (token.value !== "" && token.value !== given && !(await isOfSameTenant(given))) {
    leave();
    sessions.value += 1;
  }
  if (keep) sessionStorage.setItem(STORED, given);
  else sessionStorage.removeItem(STORED);
  token.value = given;
  expired.value = false;
  signIns.value += 1;
}

function leave() {
  owner += 1;
  for (const empty of leaving) empty();
}

/** Whether a token sees what is on the screen: tenants' data is theirs, not their users'.
 * @param {string} given */
async function isOfSameTenant(given) {
  if (!tenant.value) return false;
  const page = await ask("GET", "/jobs?page_size=1", { token: given });
  return page.jobs[0]?.tenant_id === tenant.value;
}

/** Exchange the code of `scaimind console`, which stands in the address's fragment. */
export async function signInFromAddress() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return;
  history.replaceState(null, "", location.pathname + location.search);
  // A link must not put somebody's work into another one's name unasked.
  if (token.value) waitingCode.value = code;
  else await exchange(code);
}

/** Take the session of a code. @param {string} code */
export async function exchange(code) {
  waitingCode.value = "";
  try {
    const session = await ask("POST", "/console-sessions", { body: { code }, token: "" });
    await take(session.token, true);
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
  leave();
  if (!told && ended.startsWith("sgc_")) {
    // A tab that is closed at once ends its session all the same.
    ask("DELETE", "/console-sessions/current", { token: ended, keepalive: true }).catch((error) => {
      // Refused: it has ended already. Otherwise it lives on, and a person should know.
      if (error.status !== 401 && error.status !== 404) {
        linkProblem.value = "Signed out here, but the gateway did not answer: the session may go on until it expires.";
      }
    });
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
