// The log: a virtual list over all of it, with its tail live.
//
// Browsers bound an element's height, a log's length nothing does: the scroll bar is mapped
// onto the rows, and the wheel moves by rows. What is true is the number of the top row.
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { clock, count } from "../format.js";
import { bind } from "../keys.js";
import { get, query, segment } from "../api.js";
import { Copy, Problem } from "../parts.js";
import { fragment, go, search } from "../router.js";
import { line, SHOWN } from "./ansi.js";
import { LogBar } from "./bar.js";
import { LogSearch } from "./search.js";
import { FilteredSource, LogSource } from "./source.js";
import { Strip } from "./strip.js";

const ROW = 20;
/** Pixels by which a scroll bar is elsewhere than it was put. */
const ROUNDING = 2;
/** Below what browsers bound an element's height to. */
const TALLEST = 4_000_000;
/** Characters of a line that are shown at once. */
const WHOLE = 1_000_000;
const MARKS_EVERY_MS = 15_000;

/** The words of the address that filter. @param {URLSearchParams} words */
export function filterOf(words) {
  /** @type {Record<string, string>} */
  const filter = {};
  for (const name of ["level", "rank", "contains", "matches"]) {
    const value = words.get(name);
    if (value) filter[name] = value;
  }
  return filter;
}

/** `#<epoch>:<offset>` or `#<epoch>:<from>-<to>`. @param {string} text */
export function rangeOf(text) {
  const found = /^([a-z0-9]+):(\d+)(?:-(\d+))?$/.exec(text);
  if (!found) return null;
  const from = Number(found[2]);
  return { epoch: found[1], from, to: found[3] ? Number(found[3]) : from };
}

/** The first line of the traceback that an entry belongs to. @param {any} entry */
function blockOf(entry) {
  const block = Number(entry?.fields?.block);
  return Number.isInteger(block) && block > 0 ? block : null;
}

/** @param {{job: any, listen: (taker: (name: string, data: any) => void) => () => void}} props */
export function LogView({ job, listen }) {
  const words = search.value;
  const filter = filterOf(words);
  const key = JSON.stringify(filter);
  const filtered = key !== "{}";
  const source = useMemo(() => new LogSource(job.job_id), [job.job_id]);
  const matching = useMemo(() => (filtered ? new FilteredSource(job.job_id, filter) : null), [job.job_id, key]);
  const finder = useMemo(() => new LogSearch(job.job_id), [job.job_id]);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [rows, setRows] = useState(30);
  const [top, setTop] = useState(0);
  const [following, setFollowing] = useState(!rangeOf(fragment.value));
  const [fresh, setFresh] = useState(0);
  const [times, setTimes] = useState(true);
  const [wrap, setWrap] = useState(false);
  const [folded, setFolded] = useState(/** @type {Set<number>} */ (new Set()));
  const [opened, setOpened] = useState(/** @type {any} */ (null));
  const [marks, setMarks] = useState(/** @type {any} */ (null));
  const [gaps, setGaps] = useState(/** @type {any[]} */ ([]));
  const selected = rangeOf(fragment.value);

  useEffect(() => {
    source.open();
    return () => source.close();
  }, [source]);
  useEffect(() => {
    matching?.more();
    return () => matching?.close();
  }, [matching]);
  useEffect(() => () => finder.stop(), [finder]);
  useEffect(
    () =>
      listen((name, data) => {
        if (name === "log") {
          // With a filter only what passes arrives: offsets between are not there to be shown.
          if (matching) matching.add(data, state.current.following);
          source.add(data, data.epoch);
          if (!state.current.following) setFresh((was) => was + 1);
        } else if (name === "gap") setGaps((was) => [...was.slice(-99), data]);
      }),
    [source, matching],
  );
  useEffect(() => {
    const load = () =>
      get(`/jobs/${segment(job.job_id)}/log-marks${query({ buckets: 400 })}`).then(setMarks, () => {});
    load();
    const timer = setInterval(() => document.hidden || load(), MARKS_EVERY_MS);
    return () => clearInterval(timer);
  }, [job.job_id]);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => setRows(Math.max(5, Math.floor(element.clientHeight / ROW)));
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const { changed } = matching ?? source;
  void changed.value;
  void finder.changed.value;
  const first = source.first.value;
  const last = source.last.value;
  const total = matching ? matching.entries.length : Math.max(0, last - first + 1);
  const most = Math.max(0, total - rows);
  const at = following ? most : Math.min(top, most);

  const state = useRef({ at, most, following, total, rows, first, last, matching, setTop });
  state.current = { at, most, following, total, rows, first, last, matching, setTop };

  /** @param {number} row */
  const move = (row) => {
    const now = state.current;
    const next = Math.max(0, Math.min(now.most, row));
    const end = next >= now.most - 0.5;
    setTop(next);
    setFollowing(end);
    if (end) setFresh(0);
    if (next < 5) now.matching?.more();
  };
  // Where one wants to be before it is known how far the log goes.
  const wanted = useRef(0);
  const jump = (/** @type {number} */ offset) => {
    const now = state.current;
    if (!now.matching && !now.last) {
      wanted.current = offset;
      return;
    }
    const row = now.matching
      ? now.matching.entries.findIndex((entry) => entry.offset >= offset)
      : offset - now.first;
    move(Math.max(0, row - Math.floor(now.rows / 3)));
    if (row < now.most) setFollowing(false);
  };

  // The scroll bar: where it is follows the top row, unless a person drags it.
  const height = Math.min(total * ROW, TALLEST);
  const placed = useRef(-1);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const span = Math.max(1, element.scrollHeight - element.clientHeight);
    placed.current = most ? (at / most) * span : 0;
    element.scrollTop = placed.current;
    placed.current = element.scrollTop;
  }, [at, most, height]);
  const onScroll = () => {
    const element = box.current;
    // The browser rounds what it is told, and tells of it after the next move: that is no person.
    if (!element || Math.abs(element.scrollTop - placed.current) <= ROUNDING) return;
    const span = Math.max(1, element.scrollHeight - element.clientHeight);
    placed.current = element.scrollTop;
    move(Math.round((element.scrollTop / span) * state.current.most));
  };
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const wheel = (/** @type {WheelEvent} */ event) => {
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? event.deltaY : event.deltaY / ROW;
      move(state.current.at + (Math.abs(lines) < 1 ? Math.sign(lines) : Math.round(lines)));
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);

  useEffect(() => {
    if (!wanted.current || !source.last.value) return;
    jump(wanted.current);
    wanted.current = 0;
  }, [source.last.value > 0]);
  useEffect(() => {
    if (selected && (selected.epoch === "0" || selected.epoch === source.epoch)) jump(selected.from);
  }, [fragment.value, source.last.value > 0, source.epoch]);

  const nextOf = (/** @type {number} */ direction) => {
    const now = state.current;
    const here = now.first + now.at + Math.floor(now.rows / 3);
    const marked = (marks?.buckets ?? []).filter((/** @type {any} */ each) => each.warning || each.error);
    const found =
      direction > 0
        ? marked.find((/** @type {any} */ each) => each.first_offset > here)
        : marked.findLast((/** @type {any} */ each) => each.last_offset < here);
    if (!found) return;
    get(
      `/jobs/${segment(job.job_id)}/log-entries${query({ from: found.first_offset, limit: 1, level: "WARNING" })}`,
    ).then((page) => jump(page.entries[0]?.offset ?? found.first_offset), () => jump(found.first_offset));
  };
  const hit = (/** @type {number} */ direction) => {
    if (!finder.matches.length) return;
    // Matches are newest first: the next one is further up the list, and nearer the end of the log.
    finder.at = Math.max(0, Math.min(finder.matches.length - 1, finder.at - direction));
    jump(finder.matches[finder.at].offset);
  };
  useEffect(
    () =>
      bind([
        { keys: "f", text: "Follow the log", run: () => move(state.current.most) },
        { keys: "t", text: "Show times", run: () => setTimes((was) => !was) },
        { keys: "z", text: "Wrap lines", run: () => setWrap((was) => !was) },
        { keys: "n", text: "Next hit", run: () => hit(1) },
        { keys: "N", text: "Previous hit", run: () => hit(-1) },
        { keys: "w", text: "Next warning", run: () => nextOf(1) },
        { keys: "W", text: "Previous warning", run: () => nextOf(-1) },
        { keys: "c", text: "Copy the link", run: () => navigator.clipboard?.writeText(location.href) },
      ]),
    [marks, finder],
  );

  const address = (/** @type {number} */ offset, /** @type {boolean} */ extend) => {
    const range = extend && selected ? [Math.min(selected.from, offset), Math.max(selected.from, offset)] : [offset];
    return `${location.pathname}${location.search}#${source.epoch || "0"}:${range.join("-")}`;
  };
  const pick = (/** @type {MouseEvent} */ event, /** @type {number} */ offset) => {
    event.preventDefault();
    setFollowing(false);
    setTop(state.current.at);
    go(address(offset, event.shiftKey), { replace: true });
  };
  const fold = (/** @type {number} */ block) =>
    setFolded((was) => {
      const next = new Set(was);
      if (!next.delete(block)) next.add(block);
      return next;
    });

  const elsewhere = selected && source.epoch && selected.epoch !== "0" && selected.epoch !== source.epoch;
  const spans = finder.spans;
  const entryAt = (/** @type {number} */ index) => (matching ? matching.entries[index] : source.entry(first + index));
  const offsetAt = (/** @type {number} */ index) => matching?.entries[index]?.offset ?? first + index;
  // Of a folded traceback the first line is shown and the last one, which says what it was.
  const hidden = (/** @type {number} */ index) => {
    const block = blockOf(entryAt(index));
    if (block === null || !folded.has(block) || block === offsetAt(index)) return false;
    return index + 1 < total && blockOf(entryAt(index + 1)) === block;
  };
  const shown = [];
  const begin = Math.floor(at);
  for (let index = begin; index < total && shown.length <= rows; index += 1) {
    if (!hidden(index)) shown.push(row(entryAt(index), offsetAt(index)));
  }
  // At the end, lines from above fill what the folded ones leave.
  for (let index = begin - 1; folded.size && index >= 0 && shown.length < rows; index -= 1) {
    if (!hidden(index)) shown.unshift(row(entryAt(index), offsetAt(index)));
  }

  /** @param {any} entry @param {number} offset */
  function row(entry, offset) {
    const chosen = selected && !elsewhere && offset >= selected.from && offset <= selected.to ? " chosen" : "";
    if (entry === undefined) return html`<div key=${offset} class=${`line loading${chosen}`}><span class="gutter">${count(offset)}</span></div>`;
    if (entry === null) {
      const told = gaps.find((gap) => gap.from <= offset && (gap.to === null || offset <= gap.to));
      return html`<div key=${offset} class="line gap"><span class="gutter">${count(offset)}</span><span class="text">This line is missing${told ? `: ${told.reason}` : ": the coordinator does not have it"}.</span></div>`;
    }
    const block = blockOf(entry);
    return html`<div key=${offset} class=${`line ${entry.level?.toLowerCase() ?? ""}${chosen}`}>
      <a class="gutter" href=${`#${source.epoch || "0"}:${offset}`} onClick=${(/** @type {MouseEvent} */ event) => pick(event, offset)}>${count(offset)}</a>
      ${times ? html`<time datetime=${entry.timestamp}>${clock(entry.timestamp)}</time>` : null}
      <span class="level" title=${entry.level}>${entry.level?.[0] ?? ""}</span>
      ${entry.rank ? html`<span class="rank">r${entry.rank}</span>` : null}
      <span class="text">${line(entry.message, spans.get(offset))}${entry.message.length > SHOWN
        ? html` <button type="button" class="plain" onClick=${() => setOpened(entry)}>${count(entry.message.length)} characters…</button>`
        : null}${block === offset
        ? html` <button type="button" class="plain" aria-expanded=${!folded.has(block)} onClick=${() => fold(block)}>${folded.has(block) ? "unfold" : "fold"}</button>`
        : null}</span>
    </div>`;
  }

  return html`<section class="log" aria-label="Log">
    <${LogBar} words=${words} finder=${finder} hit=${hit} times=${times} setTimes=${setTimes} wrap=${wrap} setWrap=${setWrap} job=${job} />
    <${Problem} error=${source.error.value ?? matching?.error.value} retry=${() => source.open()} />
    <div class="log-body">
      <div ref=${box} class=${`log-box${wrap ? " wrap" : ""}`} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label="Lines"
        onKeyDown=${(/** @type {KeyboardEvent} */ event) => steps(event)}>
        <div class="log-lines">${total ? shown : html`<p class="quiet nothing">${matching ? (matching.loading.value ? "Searching…" : "No line passes the filter.") : "No lines yet."}</p>`}</div>
        <div class="log-space" style=${{ height: `${Math.max(height, 1)}px` }}></div>
      </div>
      <${Strip} marks=${marks} hits=${finder.matches.map((each) => each.offset)} first=${first} last=${last}
        top=${matching ? 0 : at} rows=${rows} jump=${jump} />
    </div>
    <p class="log-foot" role="status">
      ${count(last)} lines
      ${elsewhere ? html`<span class="warn">The address names a line of an earlier log of this job, which is no more.</span>` : null}
      ${matching ? html`<span class="quiet">${count(total)} shown${matching.exhausted ? "" : html`, <button type="button" class="plain" onClick=${() => matching.more()}>look further back</button>`}</span>` : null}
      ${following ? html`<span class="good">following</span>` : html`<button type="button" onClick=${() => move(most)}>${fresh ? `${count(fresh)} new lines` : "To the end"}</button>`}
    </p>
    ${opened ? html`<${Whole} text=${opened.message} close=${() => setOpened(null)} />` : null}
  </section>`;

  /** @param {KeyboardEvent} event */
  function steps(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: rows - 2, PageUp: 2 - rows, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(by === Infinity ? most : by === -Infinity ? 0 : at + by);
  }
}

/** A long line, whole. @param {{text: string, close: () => void}} props */
function Whole({ text, close }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  return html`<dialog ref=${dialog} class="whole" aria-label="The whole line" onClose=${close}>
    <p class="actions"><${Copy} text=${text} label="Copy" /><button type="button" autofocus onClick=${close}>Close</button></p>
    <pre tabindex="0">${text.slice(0, WHOLE)}</pre>
    ${text.length > WHOLE ? html`<p class="quiet">The first ${count(WHOLE)} of ${count(text.length)} characters; the copy has all of them.</p>` : null}
  </dialog>`;
}
