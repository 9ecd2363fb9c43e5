// The strip beside the log: where warnings, errors, gaps, runs and hits are, over all of it.
import { useEffect, useRef } from "../vendor/hooks.js";
import { coloursOf } from "../colours.js";
import { html } from "../html.js";

/**
 * @param {{marks: any, hits: number[], first: number, last: number, top: number, rows: number,
 *   jump: (offset: number) => void}} props
 */
export function Strip({ marks, hits, first, last, top, rows, jump }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context) return;
    const ratio = devicePixelRatio || 1;
    const { width, height } = element.getBoundingClientRect();
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    context.clearRect(0, 0, width, height);
    const colour = coloursOf(element);
    const span = Math.max(1, last - first + 1);
    const y = (/** @type {number} */ offset) => ((offset - first) / span) * height;
    const mark = (/** @type {number} */ from, /** @type {number} */ to, /** @type {string} */ name, /** @type {number} */ x, /** @type {number} */ wide) => {
      context.fillStyle = colour(name);
      context.fillRect(x, y(from), wide, Math.max(2, y(to + 1) - y(from)));
    };
    context.fillStyle = colour("--bg-hover");
    context.fillRect(0, y(first + top), width, Math.max(8, (rows / span) * height));
    for (const bucket of marks?.buckets ?? []) {
      if (bucket.warning) mark(bucket.first_offset, bucket.last_offset, "--warn", 0, 4);
      if (bucket.error) mark(bucket.first_offset, bucket.last_offset, "--bad", 4, 4);
    }
    for (const missing of marks?.missing ?? []) mark(missing.first, missing.last, "--text-2", 0, width);
    // A beginning is a line, however few lines the log has.
    context.fillStyle = colour("--accent");
    for (const offset of marks?.run_offsets ?? []) context.fillRect(0, y(offset), width, 2);
    for (const offset of hits) mark(offset, offset, "--series-3", 8, 4);
  });
  const click = (/** @type {MouseEvent} */ event) => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return;
    jump(Math.round(first + ((event.clientY - box.top) / box.height) * (last - first)));
  };
  return html`<canvas ref=${canvas} class="strip" onClick=${click} aria-hidden="true"></canvas>`;
}
