// A log by offset: pages that were fetched, and what came live.
import { signal } from "../vendor/signals.js";
import { ApiError, get, query, segment } from "../api.js";

/** @typedef {{offset: number, timestamp: string, level: string, message: string, source?: string,
 *   rank?: number | null, fields?: Record<string, any>}} Entry */

const PAGE = 200;
/** Pages that are kept; those that were used longest ago go first. */
const PAGES_KEPT = 60;
const LIVE_KEPT = 5_000;
/** Entries that pass a filter and are kept while one follows; twice as many for a moment. */
const FILTERED_KEPT = 10_000;
const AT_ONCE = 3;
/** After a failure a page is asked for again, and one that is not complete: so much later. */
const AGAIN_MS = 3_000;
/** Behind the newest entry of any log; as text, since it is beyond the integers of JavaScript. */
const BEHIND_ALL = "999999999999999999";

export class LogSource {
  /** @param {string} job */
  constructor(job) {
    this.job = job;
    /** Grows when something has been loaded or has come. */
    this.changed = signal(0);
    this.first = signal(1);
    this.last = signal(0);
    this.epoch = "";
    this.error = signal(/** @type {any} */ (null));
    /** What is known of each page: its entries, and up to which offset it was looked at.
     * @type {Map<number, {entries: Map<number, Entry>, to: number}>} */
    this.pages = new Map();
    /** When a page may be asked for again, in milliseconds. @type {Map<number, number>} */
    this.notBefore = new Map();
    /** @type {Map<number, Entry>} */
    this.live = new Map();
    /** @type {Set<number>} */
    this.asked = new Set();
    this.controller = new AbortController();
    this.scheduled = false;
  }

  close() {
    this.controller.abort();
  }

  /** Learn where the log begins and ends. */
  async open() {
    try {
      const page = await this.#newest();
      this.#bounds(page);
      for (const entry of page.entries) this.#keep(entry);
      this.error.value = null;
    } catch (error) {
      if (!this.controller.signal.aborted) this.error.value = error;
    }
    this.#tell();
  }

  async #newest() {
    try {
      return await this.#fetch({ before: BEHIND_ALL, limit: PAGE });
    } catch (error) {
      // A coordinator that cannot read backward still says how far its log goes.
      if (!(error instanceof ApiError) || error.status !== 501) throw error;
      return await this.#fetch({ from: 1, limit: 1 });
    }
  }

  /** The entry at an offset; undefined while it is being fetched, null where the log lacks it.
   * @param {number} offset @returns {Entry | null | undefined} */
  entry(offset) {
    const live = this.live.get(offset);
    if (live) return live;
    const index = Math.floor((offset - 1) / PAGE);
    const page = this.pages.get(index);
    const entry = page?.entries.get(offset);
    if (entry) return entry;
    if (page && offset <= page.to) return null;
    // Not fetched yet, cut short by the coordinator, or fetched before the entry was there.
    this.#ask(index);
    return undefined;
  }

  /** An entry that came live. @param {Entry} entry @param {string} epoch */
  add(entry, epoch) {
    if (epoch && epoch !== this.epoch) {
      if (this.epoch) {
        this.notBefore.clear();
        this.pages.clear();
        this.live.clear();
        this.last.value = 0;
      }
      this.epoch = epoch;
    }
    this.live.set(entry.offset, entry);
    if (this.live.size > LIVE_KEPT) this.live.delete(this.live.keys().next().value ?? 0);
    if (entry.offset > this.last.value) this.last.value = entry.offset;
    this.#tell();
  }

  /** @param {number} index */
  #ask(index) {
    if (this.asked.has(index) || this.asked.size >= AT_ONCE) return;
    if (Date.now() < (this.notBefore.get(index) ?? 0)) return;
    this.asked.add(index);
    const known = this.pages.get(index) ?? { entries: new Map(), to: index * PAGE };
    const from = known.to + 1;
    this.#fetch({ from, limit: (index + 1) * PAGE - known.to })
      .then((page) => {
        this.#bounds(page);
        for (const entry of page.entries) known.entries.set(entry.offset, entry);
        // A page may be cut short: it goes on where it was cut.
        const moved = Math.min(page.scanned_to, (index + 1) * PAGE) > known.to;
        known.to = Math.max(known.to, Math.min(page.scanned_to, (index + 1) * PAGE));
        this.pages.delete(index);
        this.pages.set(index, known);
        if (this.pages.size > PAGES_KEPT) this.pages.delete(this.pages.keys().next().value ?? 0);
        if (moved) this.notBefore.delete(index);
        else this.#later(index, AGAIN_MS);
        this.error.value = null;
      })
      .catch((error) => {
        if (this.controller.signal.aborted) return;
        this.error.value = error;
        this.#later(index, Math.max(AGAIN_MS, (error.retryAfter ?? 0) * 1000));
      })
      .finally(() => {
        this.asked.delete(index);
        this.#tell();
      });
  }

  /** Ask for a page again, but not at once. @param {number} index @param {number} ms */
  #later(index, ms) {
    this.notBefore.set(index, Date.now() + ms);
    setTimeout(() => this.controller.signal.aborted || this.#tell(), ms);
  }

  /** @param {Record<string, unknown>} which */
  #fetch(which) {
    return get(`/jobs/${segment(this.job)}/log-entries${query(which)}`, this.controller.signal);
  }

  /** @param {any} page */
  #bounds(page) {
    if (page.epoch) this.epoch = page.epoch;
    this.first.value = Math.max(1, page.first_offset || 1);
    if (page.last_offset > this.last.value) this.last.value = page.last_offset;
  }

  /** @param {Entry} entry */
  #keep(entry) {
    this.live.set(entry.offset, entry);
  }

  #tell() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.changed.value += 1;
    });
  }
}

/** Entries that pass a filter, from the newest backward; more are fetched as one scrolls up. */
export class FilteredSource {
  /** @param {string} job @param {Record<string, unknown>} filter */
  constructor(job, filter) {
    this.job = job;
    this.filter = filter;
    this.changed = signal(0);
    this.error = signal(/** @type {any} */ (null));
    this.loading = signal(false);
    /** @type {Entry[]} */
    this.entries = [];
    /** Where the next page ends; null when the beginning has been reached. @type {string | number | null} */
    this.before = BEHIND_ALL;
    this.controller = new AbortController();
  }

  close() {
    this.controller.abort();
  }

  get exhausted() {
    return this.before === null;
  }

  async more() {
    if (this.loading.value || this.exhausted) return;
    this.loading.value = true;
    try {
      const which = { before: this.before, limit: PAGE, ...this.filter };
      const page = await get(
        `/jobs/${segment(this.job)}/log-entries${query(which)}`,
        this.controller.signal,
      );
      const known = new Set(this.entries.map((entry) => entry.offset));
      this.entries = [...page.entries.filter((/** @type {Entry} */ entry) => !known.has(entry.offset)), ...this.entries];
      this.before = page.next;
      this.error.value = null;
    } catch (error) {
      if (!this.controller.signal.aborted) this.error.value = error;
    }
    this.loading.value = false;
    this.changed.value += 1;
  }

  /** An entry that came live. @param {Entry} entry
   *  @param {boolean} following whether the oldest may go: nobody looks at them */
  add(entry, following) {
    const last = this.entries.at(-1);
    if (last && last.offset >= entry.offset) return;
    this.entries.push(entry);
    if (following && this.entries.length > FILTERED_KEPT * 2) {
      this.entries = this.entries.slice(-FILTERED_KEPT);
      this.before = this.entries[0].offset;
    }
    this.changed.value += 1;
  }
}
