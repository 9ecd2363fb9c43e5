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
    axes: [{ ...axis, size: 26 }, { ...axis, size: 56, values: (/** @type {any} */ _, /** @type {any[]} */ ticks) => ticks.map((tick) => (tick === null ? "" : measure(tick))) }],
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
