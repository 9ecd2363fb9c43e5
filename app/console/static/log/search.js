// Search through a whole log: matches from the newest to the oldest, and how far it is.
import { signal } from "../vendor/signals.js";
import { query, request, segment } from "../api.js";
import { eventsOf } from "../sse.js";

export class LogSearch {
  /** @param {string} job */
  constructor(job) {
    this.job = job;
    this.changed = signal(0);
    /** Newest first. @type {{offset: number, spans: [number, number][]}[]} */
    this.matches = [];
    this.scannedTo = 0;
    this.reason = "";
    this.running = false;
    /** @type {any} */
    this.error = null;
    this.at = -1;
    this.controller = new AbortController();
  }

  get spans() {
    return new Map(this.matches.map((each) => [each.offset, each.spans]));
  }

  /** @param {Record<string, unknown>} words */
  async run(words) {
    this.stop();
    this.controller = new AbortController();
    this.matches = [];
    this.at = -1;
    this.reason = "";
    this.error = null;
    this.running = true;
    this.#tell();
    await this.#read({ ...words, limit: 1000 });
  }

  stop() {
    this.controller.abort();
    this.running = false;
  }

  /** @param {Record<string, unknown>} words */
  async #read(words) {
    const { signal: ended } = this.controller;
    try {
      const response = await request("GET", `/jobs/${segment(this.job)}/logs/search${query(words)}`, { signal: ended });
      for await (const events of eventsOf(response)) {
        for (const event of events) this.#take(event.name, event.data ? JSON.parse(event.data) : {});
        this.#tell();
      }
    } catch (error) {
      if (ended.aborted) return;
      this.error = error;
    }
    this.running = false;
    this.#tell();
  }

  /** @param {string} name @param {any} data */
  #take(name, data) {
    if (name === "match") {
      this.matches.push({ offset: data.entry.offset, spans: data.spans });
    } else if (name === "progress") this.scannedTo = data.scanned_to;
    else if (name === "done") {
      this.reason = data.reason;
      this.scannedTo = data.scanned_to;
    } else if (name === "error") this.error = new Error("The search broke off. Try again.");
  }

  #tell() {
    this.changed.value += 1;
  }
}
