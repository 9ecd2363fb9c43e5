"""The tables: what the check prints, and what documents have of the baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from scripts.bench.check_rig.axis import Found
from scripts.bench.check_rig.baseline import measured_here
from scripts.bench.fanout_rig.report import KEPT_UP

ROOT = Path(__file__).parents[3]
#: What is between these lines is written by this module.
BEGIN, END = "<!-- From scripts/bench/check --table -->\n", "<!-- End of the table -->"
HEAD = f"{'axis':34} {'baseline':>9} {'now':>7} {'change':>7} {'most':>6}  rounds"
_FIGURES = ("cpu_us_per_delivery", "p50_ms", "p99_ms")


def row(found: Found) -> str:
    """A line of what is printed."""
    name, expected = found.axis.name, found.expected
    rounds = " ".join(f"{ratio:.2f}" for ratio in found.ratios)
    if expected is None:
        return f"{name:34} {'none':>9} {found.ratio:7.3f} {'':>7} {'':>6}  {rounds}"
    most = f"{expected.tolerance:+.0%}" if found.axis.judged else "told"
    change = f"{found.ratio / expected.ratio - 1:+.0%}"
    return f"{name:34} {expected.ratio:9.3f} {found.ratio:7.3f} {change:>7} {most:>6}  {rounds}"


def fan_out_of(runs: Sequence[Path]) -> dict[str, Any]:
    """The fan-out's part of the baseline: the medians of runs as JSON."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    rounds = 0
    for run in runs:
        written = orjson.loads(run.read_bytes())
        rounds += written["rounds"]
        for result in written["results"]:
            if result["lost"] or result["doubled"]:
                raise SystemExit(f"{run}: lines were lost or doubled: {result}")
            found.setdefault((result["workload"]["name"], result["peer"]), []).append(result)
    return {
        **measured_here(),
        "runs": rounds,
        "workloads": [
            {
                "name": name,
                "watchers": results[0]["workload"]["watchers"],
                "rate": results[0]["workload"]["rate"],
                **{
                    peer: {
                        **{
                            figure: round(median(each[figure] for each in found[name, peer]), 2)
                            for figure in _FIGURES
                        },
                        "kept_up": round(median(r["kept_up"] for r in found[name, peer]), 2),
                    }
                    for peer in ("gateway", "nchan")
                },
            }
            for (name, peer), results in found.items()
            if peer == "gateway"
        ],
    }


def tables(baseline: Mapping[str, Any]) -> dict[Path, str]:
    """By document, what it has of the baseline."""
    found = {}
    if baseline["fanout"]:
        found[ROOT / "README.md"] = fan_out_table(baseline["fanout"])
    found[ROOT / "docs/performance.md"] = axes_table(baseline["axes"])
    return found


def fan_out_table(fan_out: Mapping[str, Any]) -> str:
    """CPU and latency under each workload."""
    lines = [
        "| watchers x lines/s | CPU us, gateway / nchan | p50 ms | p99 ms |",
        "|---|---|---|---|",
    ]
    for each in fan_out["workloads"]:
        cells = [
            f"{_figure(each['gateway'][name])} / {_figure(each['nchan'][name])}"
            for name in _FIGURES
        ]
        if each["nchan"]["kept_up"] < KEPT_UP:
            cells[0] += " (saturated)"
        lines.append(f"| {each['watchers']:,} x {each['rate']:,} | {' | '.join(cells)} |")
    lines.append(
        f"\nMedians of {fan_out['runs']} runs in turn, of {fan_out['date']}; {fan_out['machine']}."
    )
    return "\n".join(lines)


def axes_table(axes: Mapping[str, Any]) -> str:
    """What the check holds."""
    lines = ["| axis | a ratio of | measured | may be above it by |", "|---|---|---|---|"]
    for name, axis in axes.items():
        most = f"{axis['tolerance']:.0%}" if axis["judged"] else "only told"
        lines.append(f"| {name} | {axis['what']} | {axis['ratio']:.2f} | {most} |")
    return "\n".join(lines)


def written(text: str, table: str) -> str:
    """A document with another table."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN!r} with {END!r} behind it")
    return f"{before}{BEGIN}\n{table}\n\n{END}{after}"


def write(baseline: Mapping[str, Any]) -> None:
    """Write all documents' tables."""
    for path, table in tables(baseline).items():
        path.write_text(written(path.read_text(encoding="utf-8"), table), encoding="utf-8")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
