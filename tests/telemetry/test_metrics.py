"""The metrics: named as documented, on a registry of their own."""

from prometheus_client.parser import text_string_to_metric_families

from app.gateway.hub_observer import HubMetrics
from app.hub.close_reasons import CloseReason
from app.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body, content_type = metrics.render("text/plain")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_every_name_begins_with_scaimind() -> None:
    assert {name.split("_")[0] for name, _ in samples(Metrics())} == {"scaimind"}


def test_two_applications_do_not_share_them() -> None:
    one, other = Metrics(), Metrics()
    one.upstream_streams.inc()
    assert value(one, "scaimind_upstream_streams") == 1
    assert value(other, "scaimind_upstream_streams") == 0


def test_the_watchers_are_there_before_the_first_one() -> None:
    for kind in ("logs", "metrics"):
        assert value(Metrics(), "scaimind_watchers", kind=kind) == 0


def test_a_coordinator_call_is_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.observe_coordinator_call("GetJob", "OK", 0.003)
    metrics.observe_coordinator_call("GetJob", "NOT_FOUND", 0.2)
    calls = "scaimind_coordinator_calls_total"
    assert value(metrics, calls, method="GetJob", code="OK") == 1
    assert value(metrics, calls, method="GetJob", code="NOT_FOUND") == 1
    seconds = "scaimind_coordinator_call_seconds"
    assert value(metrics, f"{seconds}_count", method="GetJob") == 2
    assert value(metrics, f"{seconds}_bucket", method="GetJob", le="0.005") == 1


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    body, content_type = Metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_hub_is_observed() -> None:
    metrics = Metrics()
    hub = HubMetrics(metrics)
    hub.upstream_opened()
    hub.upstream_opened()
    hub.upstream_closed()
    hub.upstream_anomaly("gap")
    hub.watcher_joined("logs")
    hub.watcher_joined("logs")
    hub.watcher_left("logs", CloseReason.CLIENT_GONE)
    hub.watcher_refused("tenant")
    hub.delivered("logs", 100)
    hub.flushed(0.002, 0.01)
    hub.history_size(4096)
    assert value(metrics, "scaimind_upstream_streams") == 1
    assert value(metrics, "scaimind_upstream_anomalies_total", kind="gap") == 1
    assert value(metrics, "scaimind_watchers", kind="logs") == 1
    closed = "scaimind_watcher_closed_total"
    assert value(metrics, closed, kind="logs", reason="client_gone") == 1
    assert value(metrics, "scaimind_watcher_refused_total", limit="tenant") == 1
    assert value(metrics, "scaimind_delivered_bytes_total", kind="logs") == 100
    assert value(metrics, "scaimind_flush_seconds_count") == 1
    assert value(metrics, "scaimind_flush_interval_seconds") == 0.01
    assert value(metrics, "scaimind_history_bytes") == 4096
