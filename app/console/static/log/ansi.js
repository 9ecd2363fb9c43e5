// A line's text in its colours: ANSI by anser, mapped onto classes; nothing of it is markup.
import Anser from "../vendor/anser.js";
import { html } from "../html.js";

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
/** Characters that are shown of a line; the rest is a click away. */
export const SHOWN = 4_000;

/**
 * @param {string} message
 * @param {[number, number][]} [spans] hits, in code points of the message
 */
export function line(message, spans) {
  const text = message.length > SHOWN ? message.slice(0, SHOWN) : message;
  if (spans?.length) return marked(text, spans);
  if (!text.includes("\u001b")) return text.replace(CONTROL, "\ufffd");
  return Anser.ansiToJson(text, { use_classes: true, remove_empty: true }).map((/** @type {any} */ part) => {
    const classes = [part.fg, part.bg && `bg-${part.bg}`, ...(part.decorations ?? [])].filter(Boolean);
    return html`<span class=${classes.join(" ")}>${part.content.replace(CONTROL, "\ufffd")}</span>`;
  });
}

/** @param {string} message @param {[number, number][]} spans */
function marked(message, spans) {
  const points = Array.from(message);
  const parts = [];
  let at = 0;
  for (const [start, end] of spans) {
    if (start > points.length) break;
    parts.push(points.slice(at, start).join(""), html`<mark>${points.slice(start, end).join("")}</mark>`);
    at = end;
  }
  parts.push(points.slice(at).join(""));
  return parts.map((part) => (typeof part === "string" ? part.replace(CONTROL, "\ufffd") : part));
}
