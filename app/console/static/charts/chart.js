// One chart: a series of one or several jobs, with its band, drawn by uPlot.
import uPlot from "../vendor/uplot.js";
import { useEffect, useRef } from "../vendor/hooks.js";
import { coloursOf } from "../colours.js";
import { html } from "../html.js";
import { measure } from "../format.js";

const HEIGHT = 180;

/**
 * @param {{name: string, series: {label: string, curve: import("./curves.js").Curve, values: (number | null)[]}[],
 *   x: "step" | "time", log: boolean, sync: string, zoom: (from: number, to: number) => void,
 *   onReady?: (plot: any) => void}} props
 */
export function Chart({ name, series, x, log, sync, zoom, onReady }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const shape = `${series.map((each) => each.label).join("\n")}|${x}|${log}`;
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    plot.current = new uPlot(
      options({ name, series, x, log, sync, zoom, width: element.clientWidth, element }),
      data(series),
      element,
    );
    onReady?.(plot.current);
    const observer = new ResizeObserver(() =>
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(data(series));
  }, [series]);
  const latest = series[0]?.values.findLast((value) => value !== null);
  return html`<figure class="chart">
    <figcaption><span>${name}</span> <span class="quiet">${measure(latest)}</span></figcaption>
    <div ref=${box} class="plot" role="img" aria-label=${`${name}: ${measure(latest)} at the end; the table below has the values`}></div>
  </figure>`;
}

/** Columns of one x for all series: uPlot wants them joined. @param {any[]} series */
function data(series) {
  const tables = series.map(({ curve, values }) => [curve.x, values, curve.low, curve.high]);
  if (tables.length === 1) return tables[0];
  return uPlot.join(tables);
}

/** Ticks as text, with as many digits as tell one from the next. @param {(number | null)[]} ticks */
function marked(ticks) {
  const known = /** @type {number[]} */ (ticks.filter((tick) => tick !== null));
  const apart = Math.min(...known.slice(1).map((tick, index) => Math.abs(tick - known[index])));
  const size = Math.max(...known.map(Math.abs));
  // Of a logarithmic axis the ticks lie far apart, and so do their digits.
  const digits = apart > 0 && Number.isFinite(apart) ? Math.ceil(Math.log10(size / apart)) + 1 : 4;
  return ticks.map((tick) => (tick === null ? "" : measure(tick, Math.min(12, Math.max(3, digits)))));
}

/** @param {any} given */
function options({ series, x, log, sync, zoom, width, element }) {
  const colour = coloursOf(element);
  const lines = series.flatMap((/** @type {any} */ each, /** @type {number} */ index) => {
    const stroke = colour(`--series-${(index % 6) + 1}`);
    return [
      { label: each.label, stroke, width: 1.5, spanGaps: true, value: (/** @type {any} */ _, /** @type {any} */ value) => measure(value) },
      { label: "", stroke: "transparent", width: 0, points: { show: false } },
      { label: "", stroke: "transparent", width: 0, points: { show: false } },
    ];
  });
  const bands = series.map((/** @type {any} */ _, /** @type {number} */ index) => ({
    series: [index * 3 + 3, index * 3 + 2],
    fill: `color-mix(in oklab, ${colour(`--series-${(index % 6) + 1}`)} 18%, transparent)`,
  }));
  const axis = {
    stroke: colour("--text-2"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: x === "time" }, y: { distr: log ? 3 : 1 } },
    axes: [{ ...axis, size: 26 }, { ...axis, size: (/** @type {any} */ _, /** @type {string[] | null} */ texts) => 18 + 6.5 * Math.max(4, ...(texts ?? []).map((text) => text.length)), values: (/** @type {any} */ _, /** @type {any[]} */ ticks) => marked(ticks) }],
    series: [{ label: x }, ...lines],
    bands,
    legend: { show: false },
    cursor: { sync: { key: sync }, drag: { x: true, y: false, setScale: false }, points: { size: 5 } },
    hooks: {
      setSelect: [
        (/** @type {any} */ plot) => {
          const { left, width: wide } = plot.select;
          if (wide > 4) zoom(plot.posToVal(left, "x"), plot.posToVal(left + wide, "x"));
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}
