"""The committed baseline: scripts/bench/baseline.json."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from scripts.bench.check_rig.axis import Expected, Found

PATH = Path(__file__).parents[1] / "baseline.json"


def load(path: Path = PATH) -> dict[str, Any]:
    """The whole file; what an empty one has if there is none."""
    if not path.exists():
        return {"axes": {}, "fanout": {}}
    loaded: dict[str, Any] = orjson.loads(path.read_bytes())
    return loaded


def save(baseline: Mapping[str, Any], path: Path = PATH) -> None:
    """Write the file, in the form in which it is committed."""
    path.write_bytes(orjson.dumps(baseline, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def expected_of(baseline: Mapping[str, Any]) -> dict[str, Expected]:
    """What is expected of each axis."""
    return {
        name: Expected(axis["ratio"], axis["tolerance"]) for name, axis in baseline["axes"].items()
    }


def updated(baseline: Mapping[str, Any], found: Sequence[Found]) -> dict[str, Any]:
    """The baseline with what was measured; an axis keeps the tolerance that the file gives it."""
    axes = dict(baseline["axes"])
    for each in found:
        axes[each.axis.name] = {
            "what": each.axis.what,
            "ratio": round(each.ratio, 3),
            "tolerance": each.expected.tolerance if each.expected else each.axis.tolerance,
            "judged": each.axis.judged,
            "measurements": len(each.ratios),
            **measured_here(),
        }
    return {**baseline, "axes": axes}


def measured_here() -> dict[str, str]:
    """When and on what something was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The processor's name, as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()
