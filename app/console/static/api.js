// The public API, by fetch. All that the console shows comes through here.

import { heardTime } from "./clock.js";

export const PREFIX = "/v1/modules/scaimind";

/** A refusal or failure of a request, as a person can act on it. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 when there was no answer
   * @param {string} code
   * @param {string} message
   * @param {{details?: {field: string, message: string}[], requestId?: string, retryAfter?: number}} [more]
   */
  constructor(status, code, message, more = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = more.details ?? [];
    this.requestId = more.requestId ?? "";
    this.retryAfter = more.retryAfter ?? 0;
  }
}

/** What the session gives: the token, whose session it is, and what is called when a token no
 *  longer counts. */
const session = {
  token: () => "",
  owner: () => 0,
  refused: (/** @type {string} */ _token) => {},
};

/** @param {{token: () => string, owner: () => number, refused: (token: string) => void}} given */
export function useSession(given) {
  Object.assign(session, given);
}

/**
 * Ask, and return the answer's response; errors are thrown as `ApiError`.
 * @param {string} method
 * @param {string} path below the API's prefix, with its query
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, token?: string, root?: string, keepalive?: boolean}} [options]
 *   `root` in place of the API's prefix; `keepalive` when the request must outlive the page
 * @returns {Promise<Response>}
 */
export async function request(method, path, options = {}) {
  const token = options.token ?? session.token();
  const owner = session.owner();
  /** @type {Record<string, string>} */
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.body !== undefined) headers["Content-Type"] ??= "application/json";
  let response;
  try {
    response = await fetch((options.root ?? PREFIX) + path, {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      cache: "no-store",
      credentials: "omit",
      keepalive: options.keepalive ?? false,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "NO_ANSWER", "The gateway does not answer.");
  }
  heardTime(response.headers.get("Date"));
  // What one person asked for is not shown to the next one.
  if (options.token === undefined && owner !== session.owner()) {
    response.body?.cancel().catch(() => {});
    throw new ApiError(0, "SESSION_ENDED", "The session has ended.");
  }
  if (response.ok || response.status === 304) return response;
  const failure = await failureOf(response);
  // A token that was given by hand is being tried out: whoever tries it sees the refusal.
  if (response.status === 401 && options.token === undefined) session.refused(token);
  throw failure;
}

/** @param {Response} response */
async function failureOf(response) {
  const requestId = response.headers.get("X-Request-ID") ?? "";
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message, {
      details: error.details,
      requestId,
      retryAfter: error.retry_after,
    });
  } catch {
    return new ApiError(response.status, "UNKNOWN", `The gateway answered ${response.status}.`, {
      requestId,
    });
  }
}

/**
 * Ask for JSON, and return `data` of the envelope.
 * @param {string} method
 * @param {string} path
 * @param {Parameters<typeof request>[2]} [options]
 * @returns {Promise<any>}
 */
export async function ask(method, path, options) {
  const owner = session.owner();
  const response = await request(method, path, options);
  if (response.status === 204) return null;
  const { data } = await response.json();
  if (options?.token === undefined && owner !== session.owner()) {
    throw new ApiError(0, "SESSION_ENDED", "The session has ended.");
  }
  return data;
}

/** @param {string} path @param {AbortSignal} [signal] */
export const get = (path, signal) => ask("GET", path, { signal });

/** @param {string} path @param {unknown} [body] @param {Record<string, string>} [headers] */
export const post = (path, body = {}, headers) => ask("POST", path, { body, headers });

/**
 * Encode a query; empty values are left out, lists are repeated.
 * @param {Record<string, unknown>} values
 */
export function query(values) {
  const encoded = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") encoded.append(name, String(each));
    }
  }
  const text = encoded.toString();
  return text ? `?${text}` : "";
}

/** An id as a segment of a path. @param {string} id */
export const segment = (id) => encodeURIComponent(id);

/** A key that makes a submission safe to repeat. */
export function idempotencyKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `console-${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
