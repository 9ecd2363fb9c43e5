// What evaluations differ by: each score beside that of the first one, and which way is better.
import { html } from "../html.js";
import { measure } from "../format.js";
import { Model } from "./evaluations.js";

/** Scores of which less is better; of the others, more is. */
const LESS_IS_BETTER = new Set(["perplexity", "loss", "error", "error_rate", "wer", "cer"]);
/** Numbers beside the scores, of which none is better. */
const NO_SCORE = new Set(["tokens"]);

/** `benchmark · score` and the value. @param {any} evaluation @returns {Map<string, number>} */
export function scoresOf(evaluation) {
  const found = new Map();
  for (const result of evaluation.results ?? []) {
    for (const [name, value] of Object.entries(result.scores ?? {})) found.set(`${result.name} · ${name}`, value);
  }
  return found;
}

/**
 * How a score compares with another.
 * @param {string} column @param {number | undefined} value @param {number | undefined} base
 * @returns {{text: string, direction: "better" | "worse" | "same" | "none"}}
 */
export function difference(column, value, base) {
  if (value === undefined || base === undefined || !Number.isFinite(value) || !Number.isFinite(base)) {
    return { text: "", direction: "none" };
  }
  const by = value - base;
  const name = column.split(" · ").at(-1) ?? "";
  const share = base === 0 ? "" : ` (${by > 0 ? "+" : "−"}${Math.abs((by / base) * 100).toFixed(1)} %)`;
  const text = by === 0 ? "the same" : `${by > 0 ? "+" : "−"}${measure(Math.abs(by))}${share}`;
  if (by === 0) return { text, direction: "same" };
  if (NO_SCORE.has(name)) return { text, direction: "none" };
  return { text, direction: by < 0 === LESS_IS_BETTER.has(name) ? "better" : "worse" };
}

const SIGNS = { better: "▲ better", worse: "▼ worse", same: "", none: "" };

/** @param {{all: any[], clear: () => void}} props the first is what the others are compared with */
export function Comparison({ all, clear }) {
  const tables = all.map((each) => scoresOf(each));
  const columns = [...new Set(tables.flatMap((table) => [...table.keys()]))].sort();
  return html`<section class="comparison" aria-label="Comparison">
    <h2>Comparison <span class="quiet">with the first one</span> <button type="button" class="plain" onClick=${clear}>Clear</button></h2>
    <div class="scrolls" tabindex="0" role="region" aria-label="Differences"><table><thead><tr><th scope="col">Score</th>${all.map((each) => html`<th scope="col"><${Model} each=${each} /></th>`)}</tr></thead><tbody>
      ${columns.map(
        (column) => html`<tr><th scope="row">${column}</th>${tables.map((table, index) => {
          const value = table.get(column);
          const { text, direction } = index ? difference(column, value, tables[0].get(column)) : { text: "", direction: "none" };
          return html`<td class="number">${measure(value)}${text ? html`<br /><span class=${{ better: "good", worse: "bad", same: "quiet", none: "quiet" }[direction]}>${text} ${SIGNS[/** @type {keyof typeof SIGNS} */ (direction)]}</span>` : null}</td>`;
        })}</tr>`,
      )}
    </tbody></table></div>
  </section>`;
}
