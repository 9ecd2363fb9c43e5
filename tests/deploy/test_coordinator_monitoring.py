"""The coordinator's dashboard and alerts: of metrics that it exports, and true when they say so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.coordinator.test_prometheus_functional import Meter, registry
from tests.deploy import alerts
from tests.deploy.rendered import DEPLOY, render_with
from tests.deploy.test_monitoring import ADDED

MONITORING = DEPLOY / "components/coordinator-monitoring"

_SELECTED = re.compile(r"(scaimind_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"by \(([^)]*)\)")


def rules() -> Any:
    return yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard and the alerts, with its panel's or alert's name."""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules()["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]


def test_every_metric_and_label_is_exported() -> None:
    exported: dict[str, set[str]] = {}
    text = generate_latest(registry(Meter((0, 1)))).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            exported.setdefault(sample.name, set()).update(sample.labels)
    seen = set()
    for name, query in queries():
        assert _SELECTED.findall(query) or "up{" in query, name
        for metric, selector in _SELECTED.findall(query):
            assert metric in exported, f"{name}: {metric}"
            labels = {label for label, _ in _LABEL.findall(selector)}
            for group in _GROUPED.findall(query):
                labels |= set(group.replace(" ", "").split(","))
            assert labels - ADDED <= exported[metric], f"{name}: {metric}"
            seen.add(metric)
    jobs_and_gpus = {name for name in exported if "_process_" not in name}
    assert jobs_and_gpus <= seen, "a panel for each"


def test_the_dashboard_is_rendered_where_grafana_finds_it() -> None:
    overlay = render_with("one-machine", "monitoring", "coordinator-monitoring")
    found = overlay.named("ConfigMap", "scaimind-coordinator-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    board = json.loads(found["data"]["dashboard.json"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    uids = {
        json.loads(each["data"]["dashboard.json"])["uid"]
        for each in overlay.kind("ConfigMap")
        if "dashboard.json" in each["data"]
    }
    assert len(uids) == 2


UP = 'up{job="scaimind-coordinator"}'
OLDEST = "scaimind_queue_oldest_seconds"
HELD = 'scaimind_node_gpus_allocated{node="n"}'
BUSY = 'scaimind_gpu_utilization_ratio{node="n",gpu="0"}'


def test_alerts_are_on_when_they_should_be_and_off_otherwise(tmp_path: Path) -> None:
    alerts.check(
        rules(),
        alerts.case("ScaiMindNoCoordinator", {UP: "0x10"}, minutes=5, alerts=1),
        alerts.case("ScaiMindNoCoordinator", {UP: "1x10"}, minutes=5, alerts=0),
        alerts.case("ScaiMindQueueWaits", {OLDEST: "3000+60x60"}, minutes=40, alerts=1),
        alerts.case("ScaiMindQueueWaits", {OLDEST: "0x60"}, minutes=40, alerts=0),
        alerts.case("ScaiMindGpusHeldIdle", {HELD: "2x60", BUSY: "0x60"}, minutes=40, alerts=1),
        alerts.case("ScaiMindGpusHeldIdle", {HELD: "2x60", BUSY: "0.9x60"}, minutes=40, alerts=0),
        alerts.case("ScaiMindGpusHeldIdle", {HELD: "0x60", BUSY: "0x60"}, minutes=40, alerts=0),
        folder=tmp_path,
    )
