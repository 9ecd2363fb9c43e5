"""Alerts as Prometheus itself evaluates them, over series that a test makes up."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.programs import program


def case(name: str, series: Mapping[str, str], *, minutes: int, alerts: int) -> dict[str, Any]:
    """After so many minutes, so many alerts of this name are on. Values are one a minute."""
    return {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": alerts}],
            }
        ],
    }


def check(rules: Any, *cases: dict[str, Any], folder: Path) -> None:
    """Have promtool try the cases; skips the test where there is none."""
    promtool = program("promtool")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": list(cases)}
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", "tests.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
