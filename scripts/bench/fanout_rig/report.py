"""The tables that are printed, and the same as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from app.hub.core.flush_pacer import FlushPacer
from app.hub.settings import HubSettings
from scripts.bench.fanout_rig.measure import Idle, Result
from scripts.bench.fanout_rig.workloads import (
    EVENTS_JOBS,
    TARGET_EVENTS,
    TARGET_EVENTS_KIB,
    TARGET_LATENCY,
    TARGET_P50_MS,
    TARGET_P99_MS,
    TARGET_SHARE,
    TARGET_WATCHER_KIB,
)

#: The load client's share of its core over which it, not the server, may be what is measured.
CLIENT_LIMIT = 0.85
#: Share of the server's core over which others disturb its latency.
FOREIGN_LIMIT = 0.05
#: Share of the load's core over which watchers read late. What a server's writes then cost
#: was seen to move by half in either direction: such a ratio says little.
LOAD_LIMIT = 0.85
#: A server that delivers less than this of what was emitted is saturated.
KEPT_UP = 0.98
KIB = 1024


def notes_of(result: Result) -> Iterator[str]:
    """What a reader has to know about one measurement."""
    who = f"{result.workload.name} {result.peer}"
    if result.kept_up < KEPT_UP:
        yield (
            f"{who}: saturated (or starved by others), delivered {result.kept_up:.0%} in time; "
            "its latency grows as long as the load lasts."
        )
    if result.client_share > CLIENT_LIMIT:
        yield f"{who}: WARNING, the load client used {result.client_share:.0%} of its core."
    if result.load_share > LOAD_LIMIT:
        yield (
            f"{who}: the load's core was {result.load_share:.0%} busy: watchers read late, "
            "CPU per delivery is not to be trusted."
        )
    if result.foreign_share > FOREIGN_LIMIT:
        yield (
            f"{who}: other processes used {result.foreign_share:.0%} of the server's core: "
            "latency is not to be trusted."
        )
    if not result.verdict.clean:
        yield f"{who}: WRONG DELIVERY: {result.verdict}"


def ratios(results: Sequence[Result]) -> list[dict[str, Any]]:
    """By workload and peer, how many times less CPU per delivery the gateway needs."""
    found = []
    for ours in results:
        if ours.peer != "gateway":
            continue
        targets = dict(ours.workload.targets)
        for theirs in results:
            same = theirs.peer == "nchan" and theirs.workload == ours.workload
            if same or theirs.peer == "plain":
                target = targets.get(theirs.peer)
                ratio = theirs.cpu_us / ours.cpu_us
                found.append(
                    {
                        "workload": ours.workload.name,
                        "peer": theirs.peer,
                        "times_less_cpu": ratio,
                        "target": target,
                        "reached": None if target is None else ratio >= target,
                    }
                )
    return found


def as_json(results: Sequence[Result], idles: Sequence[Idle], *, rounds: int) -> dict[str, Any]:
    """Everything, with its units in the names; results are the medians of so many rounds."""
    return {
        "rounds": rounds,
        "results": [
            {
                **asdict(result),
                "cpu_us_per_delivery": result.cpu_us,
                "core_share": result.share,
                "lost": result.verdict.lost,
                "doubled": result.verdict.doubled,
            }
            for result in results
        ],
        "ratios": ratios(results),
        "idle": [
            {
                **asdict(idle),
                "connected_kib": idle.connected / KIB,
                "after_lines_kib": idle.after_lines / KIB,
            }
            for idle in idles
        ],
        "notes": [note for result in results for note in notes_of(result)],
    }


def as_text(results: Sequence[Result], idles: Sequence[Idle]) -> str:
    """The tables for people."""
    return "\n".join(
        [
            *_result_lines(results),
            *_ratio_lines(results),
            *_latency_lines(results),
            *_curve_lines(results),
            *_events_lines(results),
            *_idle_lines(idles),
        ]
    )


def _result_lines(results: Sequence[Result]) -> Iterator[str]:
    if not results:
        return
    yield (
        f"{'':3} {'peer':8}{'watchers':>9}{'lines/s':>8}{'deliv./s':>10}{'bytes/d':>8}"
        f"{'CPU us/d':>9}"
        f"{'user':>6}{'sys':>6}{'core':>6}{'KiB/w':>7}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'lost':>6}{'doubled':>8}{'client':>7}{'load core':>10}"
    )
    for result in results:
        workload, each = result.workload, 1e6 / max(result.delivered, 1)
        yield (
            f"{workload.name:3} {result.peer:8}{workload.watchers:9,}{workload.rate:8,}"
            f"{result.delivered / result.seconds:10,.0f}{result.bytes:8.0f}{result.cpu_us:9.2f}"
            f"{result.user * each:6.2f}{result.system * each:6.2f}{result.share:6.0%}"
            f"{result.watcher_bytes / KIB:7.1f}{result.p50_ms:8.1f}{result.p99_ms:8.1f}"
            f"{result.verdict.lost:6}{result.verdict.doubled:8}"
            f"{result.client_share:7.0%}{result.load_share:10.0%}"
        )
    for result in results:
        yield from (f"  {note}" for note in notes_of(result))


def _ratio_lines(results: Sequence[Result]) -> Iterator[str]:
    for row in ratios(results):
        target = row["target"]
        verdict = "" if target is None else f"  (to reach: {target:g}, {_word(row['reached'])})"
        yield (
            f"{row['workload']}: the gateway needs {row['times_less_cpu']:.2f} times less CPU "
            f"per delivery than {row['peer']}{verdict}"
        )
    for result in results:
        if result.peer == "gateway":
            yield (
                f"{result.workload.name}: p99 {result.p99_ms:.1f} ms (to reach: under "
                f"{TARGET_P99_MS:g}, {_word(result.p99_ms < TARGET_P99_MS)}) with "
                f"{result.share:.0%} of the core (to reach: under {TARGET_SHARE:.0%}, "
                f"{_word(result.share < TARGET_SHARE)})"
            )


def _latency_lines(results: Sequence[Result]) -> Iterator[str]:
    """The latency beside nchan's, in the same run; where that is saturated, by itself."""
    theirs = {each.workload.name: each for each in results if each.peer == "nchan"}
    for ours in results:
        peer = theirs.get(ours.workload.name)
        if ours.peer != "gateway" or peer is None:
            continue
        if peer.kept_up < KEPT_UP:
            yield (
                f"{ours.workload.name}: p50 {ours.p50_ms:.1f} ms, nchan saturated (to reach: under "
                f"{TARGET_P50_MS:g}, {_word(ours.p50_ms < TARGET_P50_MS)})"
            )
            continue
        for name, mine, other in (
            ("p50", ours.p50_ms, peer.p50_ms),
            ("p99", ours.p99_ms, peer.p99_ms),
        ):
            ratio = mine / max(other, 0.1)
            yield (
                f"{ours.workload.name}: {name} {mine:.1f} ms is {ratio:.2f} times nchan's "
                f"(to reach: at most {TARGET_LATENCY:g}, {_word(ratio <= TARGET_LATENCY)})"
            )


def _curve_lines(results: Sequence[Result]) -> Iterator[str]:
    """How long entries may be held back, by the loop's busy share; by the settings' defaults."""
    if not any(result.peer in ("gateway", "events") for result in results):
        return
    settings = HubSettings()
    pacer = FlushPacer(
        shortest=settings.flush_min,
        soon=settings.flush_soon,
        longest=settings.flush_max,
        share=settings.flush_share,
        now=0.0,
        cpu=0.0,
    )
    shares = (0.0, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
    curve = "  ".join(f"{share:.0%}: {pacer.longest_at(share) * 1e3:.0f}" for share in shares)
    demands = (0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
    joined = "  ".join(f"{demand:.0%}: {pacer.joined_at(demand):.1f}" for demand in demands)
    yield (
        "entries that are joined, by the share of the loop that writing each by itself would "
        f"take: {joined}\nheld back at most, in ms, by the busy share of the loop: {curve}"
    )


def _events_lines(results: Sequence[Result]) -> Iterator[str]:
    """The stream over many jobs, against a job's own stream under the same workload."""
    own = {each.workload.name: each for each in results if each.peer == "gateway"}
    for result in results:
        if result.peer != "events":
            continue
        yield (
            f"{result.workload.name}: {result.workload.watchers} streams over {EVENTS_JOBS} jobs "
            f"cost the coordinator {result.streams_of_jobs} streams of jobs and "
            f"{result.streams_of_states} of states"
        )
        if single := own.get(result.workload.name):
            ratio = result.cpu_us / single.cpu_us
            yield (
                f"{result.workload.name}: they need {ratio:.2f} times the CPU per delivery of the "
                f"job's own stream (to reach: at most {TARGET_EVENTS:g}, "
                f"{_word(ratio <= TARGET_EVENTS)})"
            )


def _idle_lines(idles: Sequence[Idle]) -> Iterator[str]:
    for idle in idles:
        dearest = max(idle.connected, idle.after_lines) / KIB
        verdict = ""
        targets = {"gateway": TARGET_WATCHER_KIB, "events": TARGET_EVENTS_KIB}
        if (target := targets.get(idle.peer)) is not None:
            verdict = f"  (to reach: {target:g}, {_word(dearest <= target)})"
        yield (
            f"{idle.peer:8}{idle.watchers:6,} idle watchers: {idle.connected / KIB:.1f} KiB each "
            f"when connected, {idle.after_lines / KIB:.1f} KiB after a few lines{verdict}"
        )
        if not idle.verdict.clean:
            yield f"  {idle.peer}: WRONG DELIVERY: {idle.verdict}"


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"
