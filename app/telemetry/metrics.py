"""Every Prometheus metric of the gateway, on a registry of its own."""

from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

M = TypeVar("M", Counter, Histogram)

_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FLUSH_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class Metrics:
    """The gateway's metrics; names begin with `scaimind_`.

    One object per application. The rooms keep the metrics that are theirs:
    the hub the second group, the middlewares, the bridge and auth the first.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._children: dict[tuple[object, tuple[str, ...]], object] = {}
        ProcessCollector(namespace="scaimind", registry=registry)

        self.requests = Counter(
            "scaimind_requests",
            "Completed HTTP requests.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_errors = Counter(
            "scaimind_request_errors",
            "Requests answered with an error, by its code.",
            ("code",),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "scaimind_request_seconds",
            "Time from a request's head to the end of its answer, without streams.",
            ("method", "route"),
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.coordinator_calls = Counter(
            "scaimind_coordinator_calls",
            "Completed gRPC calls to the coordinator.",
            ("method", "code"),
            registry=registry,
        )
        self.coordinator_call_seconds = Histogram(
            "scaimind_coordinator_call_seconds",
            "Duration of unary gRPC calls, including retries.",
            ("method",),
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.auth_lookups = Counter(
            "scaimind_auth_lookups",
            "API keys looked up: 'remembered' without a query, 'known' and 'unknown' with one, "
            "'failed' when the database could not answer.",
            ("result",),
            registry=registry,
        )
        self.rate_limited = Counter(
            "scaimind_rate_limited",
            "Requests rejected by the rate limit.",
            registry=registry,
        )
        self.connections_refused = Counter(
            "scaimind_connections_refused",
            "Connections closed at once for want of room: 'connections' or 'descriptors'.",
            ("reason",),
            registry=registry,
        )
        self.jwks_fetches = Counter(
            "scaimind_jwks_fetches",
            "Fetches of the issuer's keys: 'fetched' or 'failed'.",
            ("result",),
            registry=registry,
        )
        self.token_exchanges = Counter(
            "scaimind_token_exchanges",
            "Tokens requested for ScaiDrive and ScaiAtlas: 'remembered' without a request, "
            "'minted' with one; 'refused', 'subject_refused', 'invalid' or 'unavailable' "
            "otherwise.",
            ("result",),
            registry=registry,
        )

        self.cache_waiting = Gauge(
            "scaimind_cache_waiting_jobs",
            "Jobs with pending writes to the job cache.",
            registry=registry,
        )
        self.cache_written = Counter(
            "scaimind_cache_written_jobs",
            "Job writes to the job cache.",
            registry=registry,
        )
        self.cache_writes = Counter(
            "scaimind_cache_writes",
            "Batch writes to the job cache: 'ok' or 'failed'.",
            ("result",),
            registry=registry,
        )
        self.cache_write_seconds = Histogram(
            "scaimind_cache_write_seconds",
            "Duration of a batch write to the job cache.",
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.cache_dropped = Counter(
            "scaimind_cache_dropped_jobs",
            "Job updates that were not written: 'full' buffer, 'refused' by the database, "
            "'too_large', 'invalid' id, or 'shutdown'.",
            ("reason",),
            registry=registry,
        )
        self.cache_purged = Counter(
            "scaimind_cache_purged_jobs",
            "Jobs deleted from the job cache after their retention period.",
            registry=registry,
        )
        self.cache_reads = Counter(
            "scaimind_cache_reads",
            "Reads of the job cache: 'answered', 'missing', 'too_old' for what was asked, "
            "'refused' for an invalid page, or 'failed'.",
            ("read", "result"),
            registry=registry,
        )

        self.upstream_streams = Gauge(
            "scaimind_upstream_streams",
            "Open WatchJob streams to the coordinator.",
            registry=registry,
        )
        self.unknown_fields = Counter(
            "scaimind_coordinator_unknown_fields",
            "Fields of the coordinator's messages that this gateway does not know, by message and "
            "number ('other' beyond the first hundred): the coordinator is newer.",
            ("message", "number"),
            registry=registry,
        )
        self.upstream_anomalies = Counter(
            "scaimind_upstream_anomalies",
            "Contract violations of the coordinator, by kind.",
            ("kind",),
            registry=registry,
        )
        self.watchers = Gauge(
            "scaimind_watchers", "Connected watchers.", ("kind",), registry=registry
        )
        self.watcher_closed = Counter(
            "scaimind_watcher_closed",
            "Watchers that left or were disconnected, by reason.",
            ("kind", "reason"),
            registry=registry,
        )
        self.watcher_refused = Counter(
            "scaimind_watcher_refused",
            "Watchers that were rejected, by limit.",
            ("limit",),
            registry=registry,
        )
        self.delivered_bytes = Counter(
            "scaimind_delivered_bytes",
            "Bytes of events written to watchers.",
            ("kind",),
            registry=registry,
        )
        self.flush_seconds = Histogram(
            "scaimind_flush_seconds",
            "Time for which one flush of a feed occupied the event loop.",
            buckets=_FLUSH_SECONDS,
            registry=registry,
        )
        self.flush_interval = Gauge(
            "scaimind_flush_interval_seconds",
            "Time for which new entries are held back to be written together.",
            registry=registry,
        )
        self.history_bytes = Gauge(
            "scaimind_history_bytes",
            "Memory of the log entries kept for all feeds.",
            registry=registry,
        )
        # Present from the start, so that a rate over them has a beginning.
        for reason in ("full", "refused", "too_large", "invalid", "shutdown"):
            self.cache_dropped.labels(reason=reason)
        for reason in ("connections", "descriptors"):
            self.connections_refused.labels(reason=reason)
        for result in ("ok", "failed"):
            self.cache_writes.labels(result=result)
        self.request_errors.labels(code="CLOCK_SKEW")
        for kind in ("early_end", "repeated", "rewound", "skipped"):
            self.upstream_anomalies.labels(kind=kind)
        for kind in ("logs", "metrics", "events"):
            self.watchers.labels(kind=kind)
            self.delivered_bytes.labels(kind=kind)

    def observe_request(
        self, method: str, route: str, status: int, code: str | None, seconds: float | None
    ) -> None:
        """Count a request: its error's code, if it has one, and how long it took unless it was a
        stream."""
        self._child(self.requests, method, route, str(status)).inc()
        if code is not None:
            self._child(self.request_errors, code).inc()
        if seconds is not None:
            self._child(self.request_seconds, method, route).observe(seconds)

    def observe_coordinator_call(self, method: str, code: str, seconds: float | None) -> None:
        """Count a call: the RPC's name, the name of its status, how long a unary one took."""
        self._child(self.coordinator_calls, method, code).inc()
        if seconds is not None:
            self._child(self.coordinator_call_seconds, method).observe(seconds)

    def _child(self, metric: M, *labels: str) -> M:
        """The metric with these labels; looked up once, which takes longer than to count."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast(M, child)

    def count_unknown_fields(self, message: str, number: str, count: int) -> None:
        """Count fields of a newer contract."""
        self.unknown_fields.labels(message=message, number=number).inc(count)

    def expect_breach(self, kind: str) -> None:
        """Have a count of this kind from the start, so that an increase of it has a beginning."""
        self.upstream_anomalies.labels(kind=kind)

    def count_breach(self, kind: str) -> None:
        """Count a message of the coordinator that breaks its contract."""
        self.upstream_anomalies.labels(kind=kind).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type in the form that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
