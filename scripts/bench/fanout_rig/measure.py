"""One measurement: one server, one workload, fresh processes."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.bench.fanout_rig import peers
from scripts.bench.fanout_rig.balanced import balanced
from scripts.bench.fanout_rig.client import watching
from scripts.bench.fanout_rig.peers import Endpoint, await_stream
from scripts.bench.fanout_rig.processes import (
    Cores,
    Dialog,
    RigError,
    core_busy,
    environment,
    memory_of,
    python,
    started,
    tail,
    usage_of,
)
from scripts.bench.fanout_rig.workloads import BATCH, EVENTS_JOBS, Workload

#: After this many seconds a line that has not arrived is lost.
DRAIN = 10.0
#: A pause in which whatever a server does after an arrival is over, seconds.
SETTLE = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the watchers say about all lines from the first to the last."""

    #: Numbers skipped, those not come by the end, and connections that were closed.
    lost: int
    doubled: int
    closed: int
    #: Events that tell of trouble: `gap`, `error`, `end`.
    trouble: int

    @property
    def clean(self) -> bool:
        """Whether every watcher had every line once and in order."""
        return not (self.lost or self.doubled or self.closed or self.trouble)


@dataclass(frozen=True, slots=True)
class Result:
    """What one server did under one workload, in the measured interval only."""

    peer: str
    workload: Workload
    seconds: float
    #: Events that watchers received.
    delivered: int
    #: What they received of each, framing and all.
    bytes: float
    #: CPU time of the server's process tree, seconds.
    user: float
    system: float
    #: Of what was emitted, what reached the watchers in time; under 1 the server is saturated.
    kept_up: float
    #: Bytes (PSS) by which the server grew for each watcher until all were connected.
    watcher_bytes: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: Share of its core that the load client used.
    client_share: float
    #: Share of the load's core that was busy, whoever used it.
    load_share: float
    #: Share of the server's core that others took.
    foreign_share: float
    verdict: Verdict
    #: Streams that the server opened at the coordinator, of a job and of a tenant's states; 0 of
    #: peers that have none.
    streams_of_jobs: int
    streams_of_states: int

    @property
    def cpu_us(self) -> float:
        """CPU time per delivered event, microseconds."""
        return (self.user + self.system) * 1e6 / max(self.delivered, 1)

    @property
    def share(self) -> float:
        """Share of a core that the server used."""
        return (self.user + self.system) / self.seconds


def median_of(results: Sequence[Result]) -> Result:
    """The middle of each figure of some runs of the same; the faults of all of them."""
    middle = {
        name: statistics.median(getattr(each, name) for each in results)
        for name, kind in Result.__annotations__.items()
        if kind in (int, float)
    }
    faults = {
        name: sum(getattr(each.verdict, name) for each in results)
        for name in Verdict.__annotations__
    }
    return replace(results[0], **middle, verdict=Verdict(**faults))


@dataclass(frozen=True, slots=True)
class Idle:
    """What watchers cost in memory who only wait."""

    peer: str
    watchers: int
    #: PSS of the server before they came.
    before: int
    #: CPU time that it took to let one in, microseconds.
    join_us: float
    #: Bytes per watcher when all were connected, and after a few lines went to each.
    connected: float
    after_lines: float
    verdict: Verdict


class Bench:
    """Starts servers and loads, and measures; all has ended when a call returns."""

    def __init__(self, *, cores: Cores, folder: Path, gateway: peers.Gateway | None) -> None:
        self.cores = cores
        self._folder = folder
        self._gateway = gateway

    def window(
        self, peer: str, workload: Workload, *, warm_up: float, seconds: float, stalled: int = 0
    ) -> Result:
        """Loads a fresh server, and measures for so long after the warm-up.

        `stalled` further watchers do not read; nothing of theirs is measured.
        """
        with self.serving(peer, workload.watchers) as (endpoint, emitter, log):
            before = memory_of(endpoint.tree())
            with (
                peers.stalled_watchers(endpoint, stalled),
                watching(
                    endpoint, workload.watchers, core=self.cores.load, log=log / "client"
                ) as client,
            ):
                time.sleep(SETTLE)
                tree = endpoint.tree()
                grown = memory_of(tree) - before
                emitter.ask(f"start {workload.rate}")
                time.sleep(warm_up)
                client.ask("begin")
                usage, busy = usage_of(tree), self._busy()
                time.sleep(seconds)
                used, busy_after = usage_of(tree).since(usage), self._busy()
                window = client.ask("end")
                opened = emitter.ask("opened")
                verdict = verdict_of(client, emitter)
        wall = window["wall_s"]
        return Result(
            peer=peer,
            workload=workload,
            seconds=wall,
            delivered=window["delivered"],
            bytes=window["bytes"] / max(window["delivered"], 1),
            user=used.user,
            system=used.system,
            kept_up=window["delivered"] / (workload.watchers * workload.rate * wall),
            watcher_bytes=grown / workload.watchers,
            p50_ms=window["p50_us"] / 1000,
            p99_ms=window["p99_us"] / 1000,
            max_ms=window["max_us"] / 1000,
            client_share=window["cpu_s"] / wall,
            load_share=(busy_after[1] - busy[1]) / wall,
            foreign_share=max((busy_after[0] - busy[0] - used.total) / wall, 0.0),
            verdict=verdict,
            streams_of_jobs=opened["watch_job"],
            streams_of_states=opened["watch_jobs"],
        )

    def idle(self, peer: str, watchers: int) -> Idle:
        """Connects watchers to a fresh server and measures what they cost in memory."""
        with self.serving(peer, watchers) as (endpoint, emitter, log):
            before, usage = memory_of(endpoint.tree()), usage_of(endpoint.tree())
            with watching(endpoint, watchers, core=self.cores.load, log=log / "client") as client:
                joining = usage_of(endpoint.tree()).since(usage)
                time.sleep(SETTLE)
                connected = memory_of(endpoint.tree()) - before
                emitter.ask("start 2")
                time.sleep(3)
                verdict = verdict_of(client, emitter)
                time.sleep(SETTLE)
                after = memory_of(endpoint.tree()) - before
        return Idle(
            peer=peer,
            watchers=watchers,
            before=before,
            join_us=joining.total * 1e6 / watchers,
            connected=connected / watchers,
            after_lines=after / watchers,
            verdict=verdict,
        )

    def faulty(self, fault: str | None, *, watchers: int) -> Verdict:
        """Lets the coordinator spoil one line (`hole`, `double`) behind the plain server."""
        with (
            self.serving("plain", watchers, fault=fault) as (endpoint, emitter, log),
            watching(endpoint, watchers, core=self.cores.load, log=log / "client") as client,
        ):
            emitter.ask("start 50")
            time.sleep(SETTLE)
            return verdict_of(client, emitter)

    @contextlib.contextmanager
    def serving(
        self,
        peer: str,
        watchers: int,
        *,
        fault: str | None = None,
        batch: int = BATCH,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[Endpoint, Dialog, Path]]:
        """A fresh server, the emitter behind it, and a folder for logs.

        The emitter's messages have at most `batch` entries; `settings` are the gateway's.
        """
        log = Path(tempfile.mkdtemp(prefix=f"{peer}-", dir=self._folder))
        server_log, core = log / "server", self.cores.server
        with contextlib.ExitStack() as stack:
            if peer == "nchan":
                endpoint = stack.enter_context(
                    peers.nchan(watchers=watchers, core=core, log=server_log)
                )
                publish = f"http://127.0.0.1:{endpoint.port}/publish"
                emitter, _ = stack.enter_context(self._emitting(log / "emitter", publish=publish))
            else:
                jobs = EVENTS_JOBS if peer == "events" else 1
                emitter, port = stack.enter_context(
                    self._emitting(log / "emitter", fault=fault, jobs=jobs, batch=batch)
                )
                address = f"127.0.0.1:{port}"
                if peer == "plain":
                    serving = peers.plain(coordinator=address, core=core, log=server_log)
                elif peer == "balanced":
                    assert self._gateway is not None
                    serving = balanced(
                        self._gateway,
                        coordinator=address,
                        watchers=watchers,
                        core=core,
                        log=server_log,
                    )
                else:
                    assert self._gateway is not None
                    serving = self._gateway.serving(
                        coordinator=address,
                        watchers=watchers,
                        core=core,
                        log=server_log,
                        many=peer == "events",
                        packed=peer == "gzip",
                        settings=settings,
                    )
                endpoint = replace(stack.enter_context(serving), coordinator=address)
            await_stream(endpoint)
            try:
                yield endpoint, emitter, log
            except RigError as error:
                raise RigError(f"{error}\nthe {peer} server said:\n{tail(server_log)}") from error

    @contextlib.contextmanager
    def _emitting(
        self,
        log: Path,
        *,
        publish: str | None = None,
        fault: str | None = None,
        jobs: int = 1,
        batch: int = BATCH,
    ) -> Iterator[tuple[Dialog, int]]:
        command = python("scripts.bench.fanout_rig.emitter", "--jobs", str(jobs))
        command += ["--batch", str(batch)]
        if publish:
            command += ["--publish", publish]
        if fault:
            command += ["--fault", fault]
        with started(
            command, core=self.cores.load, log=log, env=environment(), piped=True
        ) as process:
            dialog = Dialog(process, name="emitter", log=log)
            yield dialog, dialog.hear()["port"]

    def _busy(self) -> tuple[float, float]:
        return core_busy(self.cores.server), core_busy(self.cores.load)


def verdict_of(client: Dialog, emitter: Dialog) -> Verdict:
    """Stop the lines, and return what the watchers say once the last one has had its time."""
    last = emitter.ask("stop")["last"]
    said = client.ask(f"finish {last} {DRAIN * 1000:.0f}")
    return Verdict(
        lost=said["holes"] + said["missing_at_end"],
        doubled=said["doubled"],
        closed=said["closed"],
        trouble=said["gap_events"] + said["error_events"] + said["end_events"],
    )
