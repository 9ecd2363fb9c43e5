"""Dashboard and alerts name only metrics, and labels of theirs, that a gateway really exports."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.hub.close_reasons import CloseReason
from app.scaikey.api_keys import create_key
from tests.deploy.alerts import case, check
from tests.deploy.processes import Replica, replicas
from tests.deploy.rendered import DEPLOY, render, render_with
from tests.hub.log_coordinator import JOB, LogCoordinator
from tests.ports import free_ports
from tests.programs import program

API = "/v1/modules/scaimind"
MONITORING = DEPLOY / "components/monitoring"
#: Labels that Prometheus itself adds when it reads the metrics.
ADDED = {"job", "pod", "namespace", "instance"}

_SELECTED = re.compile(r"(scaimind_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"by \(([^)]*)\)")


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard and the alerts, with its panel's or alert's name."""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for name, rule in alerts():
        yield name, rule["expr"]


def alerts() -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in rules()["groups"][0]["rules"]:
        yield rule["alert"], rule


def rules() -> Any:
    return yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]


@pytest.fixture
async def gateway(migrated_dsn: str) -> AsyncIterator[Replica]:
    # What it does not serve is UNIMPLEMENTED, as generated.
    async with (
        LogCoordinator() as coordinator,  # type: ignore[abstract]
        replicas(
            free_ports(1),
            coordinator=coordinator.address,
            dsn=migrated_dsn,
            SCAIMIND_HUB_MAX_WATCHERS="1",
            SCAIMIND_HUB_MAX_WATCHERS_PER_TENANT="1",
            SCAIMIND_HUB_MAX_WATCHERS_PER_USER="1",
        ) as made,
    ):
        coordinator.jobs[JOB]
        await coordinator.log("one")
        await coordinator.snapshot(1)
        key = create_key(migrated_dsn, tenant_id="acme", user_id="ann", roles=["tenant_admin"])
        await one_of_everything(made[0], key.secret, coordinator)
        yield made[0]


async def one_of_everything(gateway: Replica, key: str, coordinator: LogCoordinator) -> None:
    """Use all that a gateway does, so that each label has had a value."""
    url = f"http://127.0.0.1:{gateway.port}"
    job = f"{API}/jobs/{JOB}"
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as http,
    ):
        async with http.get(f"{job}/logs") as watching:
            assert b"event: bookmark" in await watching.content.readuntil(b"\n\n")
            async with http.get(f"{job}/logs") as refused:
                assert refused.status == 429
        # There is room for one: the first is to have left.
        while await gateway.metric("scaimind_watchers"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        async with http.get(f"{job}/metrics/stream?interval=1") as watching:
            assert watching.status == 200
            await watching.content.readuntil(b"event: metrics")
        async with http.get(job) as found:
            assert found.status == 200
        coordinator.refusals["GetJob"] = (grpc.StatusCode.UNAVAILABLE, "away")
        async with http.get(job) as away:
            assert away.status in (200, 503)
        async with http.get(job, headers={"Authorization": "Bearer sgk_" + "x" * 40}) as unknown:
            assert unknown.status == 401


async def test_every_metric_and_label_is_exported(gateway: Replica) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{gateway.port}/metrics") as answer,
    ):
        text = await answer.text()
    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        if family.type == "counter":
            # Declared before it has a value: which labels it has is not told yet.
            exported[f"{family.name}_total"] = set()
        for sample in family.samples:
            exported.setdefault(sample.name, set()).update(sample.labels)
    seen = set()
    for name, query in queries():
        names = [metric for metric, _ in _SELECTED.findall(query)]
        assert names or "up{" in query, name
        for metric, selector in _SELECTED.findall(query):
            assert metric in exported, f"{name}: {metric}"
            labels = {label for label, _ in _LABEL.findall(selector)}
            for group in _GROUPED.findall(query):
                labels |= set(group.replace(" ", "").split(","))
            if exported[metric] or not metric.endswith("_total"):
                assert labels - ADDED <= exported[metric], f"{name}: {metric}"
            seen.add(metric)
    assert len(seen) > 15


def test_the_reasons_that_alerts_ask_for_exist() -> None:
    reasons = {
        each
        for _, query in queries()
        for label, values in _LABEL.findall(query)
        if label == "reason"
        for each in values.split("|")
    }
    assert reasons
    assert reasons <= set(CloseReason)


def test_what_to_do_is_written_for_every_alert() -> None:
    text = (DEPLOY.parent / "docs/operations.md").read_text()
    told = set(re.findall(r"^### (ScaiMind\w+)$", text, re.MULTILINE))
    rendered = render_with("one-machine", "monitoring", "coordinator-monitoring")
    named = {
        rule["alert"]
        for each in rendered.kind("PrometheusRule")
        for group in each["spec"]["groups"]
        for rule in group["rules"]
    }
    assert named >= {name for name, _ in alerts()}
    assert told == named


def test_prometheus_can_read_the_rules(tmp_path: Path) -> None:
    promtool = program("promtool")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules()))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_dashboard_is_rendered_where_grafana_finds_it() -> None:
    found = render("ingress-nginx").named("ConfigMap", "scaimind-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    board = json.loads(found["data"]["dashboard.json"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


SKEW = 'scaimind_request_errors_total{code="CLOCK_SKEW"}'


def test_one_clock_fault_is_an_alert(tmp_path: Path) -> None:
    check(
        rules(),
        case("ScaiMindClockSkew", {SKEW: "0x20"}, minutes=15, alerts=0),
        case("ScaiMindClockSkew", {SKEW: "0x10 1x10"}, minutes=15, alerts=1),
        case("ScaiMindClockSkew", {SKEW: "0 1x40"}, minutes=30, alerts=0),
        folder=tmp_path,
    )
