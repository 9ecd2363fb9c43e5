// All charts of a job, and of those that it is compared with.
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { html } from "../html.js";
import { measure } from "../format.js";
import { bind } from "../keys.js";
import { Problem } from "../parts.js";
import { Chart } from "./chart.js";
import { Curves, smoothed } from "./curves.js";

const ROWS_OF_TABLE = 50;

/** @param {{job: any, others: any[], listen: (taker: (name: string, data: any) => void) => () => void}} props */
export function Charts({ job, others, listen }) {
  const [x, setX] = useState(/** @type {"step" | "time"} */ ("step"));
  const [log, setLog] = useState(false);
  const [smooth, setSmooth] = useState(0);
  const [range, setRange] = useState(/** @type {null | {from: number, to: number}} */ (null));
  const ids = [job, ...others].map((each) => each.job_id).join(" ");
  const all = useMemo(() => [job, ...others].map((each) => ({ job: each, curves: new Curves(each.job_id) })), [ids]);
  const plots = useRef(/** @type {Map<string, any>} */ (new Map()));
  useEffect(() => {
    for (const { curves } of all) {
      curves.load({ x, ...(x === "step" && range ? { from: Math.floor(range.from), to: Math.ceil(range.to) } : {}) });
    }
  }, [all, x, range]);
  useEffect(() => () => all.forEach(({ curves }) => curves.close()), [all]);
  useEffect(() => listen((name, data) => name === "metrics" && !range && all[0].curves.add(data)), [all, range]);
  useEffect(() => bind([{ keys: "l", text: "Logarithmic scale", run: () => setLog((was) => !was) }]), []);
  const turn = all.map(({ curves }) => curves.changed.value).join(" ");
  const names = useMemo(() => [...new Set(all.flatMap(({ curves }) => curves.names()))], [turn]);
  const zoom = (/** @type {number} */ from, /** @type {number} */ to) => setRange({ from, to });
  const charts = useMemo(
    () =>
      names.map((name) => ({
        name,
        series: all
          .map(({ job: each, curves }) => {
            const curve = curves.curve(name);
            return { label: each.name || each.job_id, curve, values: smoothed(curve.y, smooth) };
          })
          .filter((each) => each.curve.x.length),
      })),
    [turn, names, smooth],
  );
  const error = all.map(({ curves }) => curves.error.value).find(Boolean);
  return html`<section class="charts" aria-label="Charts">
    <div class="charts-bar">
      <span class="chips" role="group" aria-label="Horizontal axis">
        <button type="button" aria-pressed=${x === "step"} onClick=${() => setX("step")}>Step</button>
        <button type="button" aria-pressed=${x === "time"} onClick=${() => setX("time")}>Time</button>
      </span>
      <button type="button" aria-pressed=${log} title="Logarithmic (l)" onClick=${() => setLog(!log)}>Log</button>
      <label class="check">Smooth <input type="range" min="0" max="0.99" step="0.01" value=${smooth} onInput=${(/** @type {any} */ event) => setSmooth(Number(event.target.value))} /></label>
      ${range ? html`<button type="button" onClick=${() => setRange(null)}>Whole run</button>` : null}
      <span class="spring"></span>
      <button type="button" disabled=${!charts.length} onClick=${() => csv(job, charts, x)}>CSV</button>
      <button type="button" disabled=${!charts.length} onClick=${() => png(job, plots.current)}>PNG</button>
    </div>
    <${Problem} error=${error} />
    ${others.length ? html`<p class="legend">${[job, ...others].map((each, index) => html`<span class=${`key key-${(index % 6) + 1}`} dir="auto">${each.name}</span>`)}</p>` : null}
    ${charts.length
      ? charts.map(
          ({ name, series }) => html`<${Chart} key=${name} name=${name} series=${series} x=${x} log=${log} sync=${job.job_id} zoom=${zoom}
            onReady=${(/** @type {any} */ plot) => plots.current.set(name, plot)} />`,
        )
      : html`<p class="quiet nothing">No metrics yet. A script reports them by <code>SCAIMIND_METRICS_FILE</code>.</p>`}
    ${charts.length ? html`<${Values} charts=${charts} x=${x} />` : null}
  </section>`;
}

/** The values for those who cannot see a chart. @param {{charts: any[], x: string}} props */
function Values({ charts, x }) {
  return html`<details class="values">
    <summary>Values</summary>
    ${charts.map(
      ({ name, series }) => html`<table>
        <caption>${name}, the newest ${ROWS_OF_TABLE}</caption>
        <thead><tr><th scope="col">${x}</th>${series.map((/** @type {any} */ each) => html`<th scope="col">${each.label}</th>`)}</tr></thead>
        <tbody>
          ${(series[0]?.curve.x ?? []).slice(-ROWS_OF_TABLE).map((/** @type {number} */ at) => {
            return html`<tr><th scope="row">${x === "time" ? new Date(at * 1000).toLocaleString() : at}</th>${series.map((/** @type {any} */ each) => {
              const index = each.curve.x.indexOf(at);
              return html`<td>${index < 0 ? "" : measure(each.values[index])}</td>`;
            })}</tr>`;
          })}
        </tbody>
      </table>`,
    )}
  </details>`;
}

/** @param {any} job @param {any[]} charts @param {string} x */
function csv(job, charts, x) {
  const cell = (/** @type {unknown} */ value) => {
    const text = String(value ?? "");
    // A spreadsheet would run what begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [["series", "job", x, "value", "min", "max"].join(",")];
  for (const { name, series } of charts) {
    for (const { label, curve } of series) {
      curve.x.forEach((/** @type {number} */ at, /** @type {number} */ index) => {
        lines.push([name, label, at, curve.y[index], curve.low[index], curve.high[index]].map(cell).join(","));
      });
    }
  }
  save(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }), `${job.job_id}.csv`);
}

/** All charts below each other. @param {any} job @param {Map<string, any>} plots */
function png(job, plots) {
  const canvases = [...plots.entries()].map(([name, plot]) => ({ name, canvas: plot.ctx.canvas })).filter((each) => each.canvas.isConnected);
  const ratio = devicePixelRatio || 1;
  const title = 24 * ratio;
  const whole = document.createElement("canvas");
  whole.width = Math.max(...canvases.map((each) => each.canvas.width));
  whole.height = canvases.reduce((sum, each) => sum + each.canvas.height + title, 0);
  const context = /** @type {CanvasRenderingContext2D} */ (whole.getContext("2d"));
  const style = getComputedStyle(document.body);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, whole.width, whole.height);
  context.font = `${12 * ratio}px system-ui`;
  let y = 0;
  for (const { name, canvas } of canvases) {
    context.fillStyle = style.color;
    context.fillText(name, 8 * ratio, y + 16 * ratio);
    context.drawImage(canvas, 0, y + title);
    y += canvas.height + title;
  }
  whole.toBlob((blob) => blob && save(blob, `${job.job_id}.png`));
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
