// Server-Sent Events from a fetch: WHATWG HTML, 9.2.6, as a state machine over decoded text.

/**
 * @typedef {{name: string, data: string, id: string | null, retry: number | null}} StreamEvent
 */

export class EventDecoder {
  #rest = "";
  /** @type {string[]} */
  #data = [];
  #name = "";
  /** @type {string | null} */
  #id = null;
  /** @type {number | null} */
  #retry = null;
  #first = true;

  /**
   * Take a piece of text, and return the events that it completes.
   * @param {string} text
   * @returns {StreamEvent[]}
   */
  push(text) {
    if (this.#first && text) {
      text = text.replace(/^\uFEFF/, "");
      this.#first = false;
    }
    const events = [];
    // A CR at the end may be half of a CRLF.
    let whole = this.#rest + text;
    let held = "";
    if (whole.endsWith("\r")) {
      whole = whole.slice(0, -1);
      held = "\r";
    }
    const lines = whole.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? "") + held;
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  /** @param {string} line @returns {StreamEvent | null} */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.#retry = Number(value);
    return null;
  }

  /** @returns {StreamEvent | null} */
  #dispatch() {
    const event = {
      name: this.#name || "message",
      data: this.#data.join("\n"),
      id: this.#id,
      retry: this.#retry,
    };
    const has = this.#data.length > 0 || this.#retry !== null;
    this.#data = [];
    this.#name = "";
    this.#id = null;
    this.#retry = null;
    return has ? event : null;
  }
}

/**
 * Read a response's events until it ends.
 * @param {Response} response
 * @returns {AsyncGenerator<StreamEvent[]>} those of each piece that arrived
 */
export async function* eventsOf(response) {
  const body = response.body;
  if (!body) return;
  const reader = body.getReader();
  const text = new TextDecoder();
  const decoder = new EventDecoder();
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.push(text.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
