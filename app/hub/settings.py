"""Settings of the streams."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import KiB, MiB, Section, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings(Section):
    """Fan-out of one upstream stream per job to its watchers."""

    PREFIX: ClassVar[str] = "SCAIMIND_HUB_"
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = (
        ("flush_min", "flush_max"),
        ("reconnect_min", "reconnect_max"),
        ("history_bytes", "history_bytes_total"),
        ("max_watchers_per_user", "max_watchers_per_tenant"),
        ("max_watchers_per_tenant", "max_watchers"),
    )

    history_bytes: int = setting(4 * MiB, "Newest log entries kept per job.", at_least=64 * KiB)
    history_bytes_total: int = setting(
        256 * MiB, "Newest log entries kept over all jobs.", at_least=1 * MiB
    )
    history_tail: int = setting(
        2000, "Newest log entries with which a history begins.", at_least=0, at_most=100_000
    )
    slice_bytes: int = setting(
        64 * KiB, "What is written to a watcher at once.", at_least=1 * KiB, at_most=128 * KiB
    )
    open_timeout: float = setting(
        10.0, "How long the upstream stream of a job may take to begin.", at_least=0.1
    )
    linger: float = setting(30.0, "How long a feed outlives its last watcher.", at_least=0)
    keepalive_interval: float = setting(
        15.0, "Silence after which a watcher is sent a keepalive.", at_least=0.05
    )
    write_timeout: float = setting(
        30.0, "A watcher that has taken nothing for so long is dropped.", at_least=0.05
    )
    flush_min: float = setting(
        0.004, "Shortest time between two writes to a watcher.", at_least=0, at_most=1
    )
    flush_max: float = setting(
        0.05,
        "Longest time for which new entries are held back to be written together.",
        at_least=0,
        at_most=1,
    )
    flush_share: float = setting(
        0.05,
        "Share of the event loop's time that flushing aims to stay below.",
        at_least=0.01,
        at_most=1,
    )
    retry_ms: int = setting(
        2000, "Milliseconds after which a client is told to connect again.", at_least=0
    )
    drain_spread: float = setting(
        10.0,
        "Over how long the watchers of a process that stops are told to come back.",
        at_least=0,
    )
    bookmark_interval: float = setting(
        10.0,
        "How often a watcher whose filter let nothing through is told its position.",
        at_least=0.05,
    )
    outage_limit: float = setting(
        120.0, "How long watchers are kept while the coordinator is away.", at_least=0
    )
    reconnect_min: float = setting(
        0.2, "First pause before an upstream stream is opened again.", at_least=0.01
    )
    reconnect_max: float = setting(
        5.0, "Longest pause before an upstream stream is opened again.", at_least=0.01
    )
    max_watchers: int = setting(20_000, "Watchers of this process.", at_least=1)
    max_watchers_per_tenant: int = setting(5_000, "Watchers of one tenant.", at_least=1)
    max_watchers_per_user: int = setting(2_000, "Watchers of one user.", at_least=1)
    max_feeds: int = setting(2_000, "Jobs watched at the same time.", at_least=1)
