"""Helper programs of jobs on this machine, in the sandbox that a run of the job would have."""

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from typing_extensions import override

from app.coordinator.engines.programs import ProgramEnd, Programs, ProgramSpec
from app.coordinator.isolation.levels import Isolation, Level
from app.coordinator.isolation.ownership import give_to_job, open_to_job
from app.coordinator.isolation.sandbox import CannotStart, Sandbox
from app.coordinator.isolation.uids import JobUids
from app.coordinator.logs.lines import LineSplitter
from app.coordinator.resources.disk_use import disk_use
from app.coordinator.resources.resource_watch import Bounds, ResourceWatch, in_words
from app.files.copying import Abandoned

#: Seconds between two looks at whether anybody wants the result.
_LOOK: Final = 0.1
#: Seconds between two looks at what was written; one that takes long is followed by a pause of so
#: many times that.
_MEASURE: Final = 1.0
_LEISURE: Final = 10
_READ: Final = 64 * 1024
_NICE: Final = 10
#: It goes before any run when memory is short (proc(5), oom_score_adj).
_OOM_SCORE: Final = 900
_OPEN_FILES: Final = 4096
_PROCESSES: Final = 1024
_SHARED_MEMORY: Final = 256 * 1024**2


class LocalPrograms(Programs):
    """Runs programs in sandboxes of their own."""

    def __init__(
        self,
        *,
        isolation: Isolation,
        uids: JobUids | None,
        readable: tuple[str, ...],
        roots: tuple[str, ...],
    ) -> None:
        """`uids` are given where jobs have users of their own. `readable` is what every process
        may read; `roots` are the directories of the coordinator's own."""
        self._isolation = isolation
        self._uids = uids
        self._readable = readable
        self._roots = roots

    @override
    def run(
        self,
        spec: ProgramSpec,
        *,
        output: Callable[[bytes], None],
        abandoned: threading.Event,
    ) -> ProgramEnd:
        with self._sandbox(spec) as sandbox:
            own = self._isolation.level is Level.NAMESPACES
            supervision = _Supervision(spec, sandbox, output, own_shared_memory=own)
            return supervision.run(abandoned)

    @contextmanager
    def _sandbox(self, spec: ProgramSpec) -> Iterator[Sandbox]:
        """The sandbox in which nothing of the program has begun; nothing is left at the end."""
        own = [str(path) for path in (*spec.writable, spec.temporary)]
        uid = self._uids.take(spec.place) if self._uids is not None else None
        try:
            if uid is not None:
                give_to_job(own, uid)
                readable = map(str, spec.readable)
                open_to_job(readable, reached=[*own, str(spec.cwd)], roots=self._roots)
            sandbox = self._made(spec, uid, own)
            try:
                yield sandbox
            finally:
                sandbox.discard_outputs()
                sandbox.close()
        finally:
            if self._uids is not None:
                give_to_job(own, os.getuid())
                self._uids.give_up(spec.place)

    def _made(self, spec: ProgramSpec, uid: int | None, own: list[str]) -> Sandbox:
        isolation = {
            **self._isolation.section(uid=uid, network=spec.network, shared_memory=_SHARED_MEMORY),
            "temporary": str(spec.temporary),
            "devices": [],
        }
        temporary = "/tmp" if self._isolation.level is Level.NAMESPACES else str(spec.temporary)
        arguments: dict[str, Any] = {
            "confinement": {
                "readable": [*self._readable, *map(str, spec.readable)],
                "writable": own,
            },
            "limits": self._limits(spec, uid),
            "ranks": [
                {
                    "argv": list(spec.argv),
                    "cwd": str(spec.cwd),
                    "env": {
                        **spec.environment,
                        "HOME": temporary,
                        "TMPDIR": temporary,
                        "USER": "job",
                        "LOGNAME": "job",
                    },
                }
            ],
        }
        if uid is None or self._uids is None:
            return Sandbox(isolation, **arguments)
        with self._uids.pass_on(uid) as lock:
            return Sandbox(isolation, **arguments, held=lock)

    def _limits(self, spec: ProgramSpec, uid: int | None) -> dict[str, Any]:
        rlimits = {"NOFILE": _OPEN_FILES, "FSIZE": spec.size_bytes, "CORE": 0}
        # Where the kernel counts what runs here apart from all others.
        if uid is not None or (self._isolation.level is Level.NAMESPACES and os.getuid() != 0):
            rlimits["NPROC"] = _PROCESSES
        return {"rlimits": rlimits, "nice": _NICE, "oom_score_adj": _OOM_SCORE}


class _Supervision:
    """One program, from its beginning to its end."""

    def __init__(
        self,
        spec: ProgramSpec,
        sandbox: Sandbox,
        output: Callable[[bytes], None],
        *,
        own_shared_memory: bool,
    ) -> None:
        self._spec = spec
        self._sandbox = sandbox
        self._output = output
        self._own = [str(path) for path in (*spec.writable, spec.temporary)]
        self._own_shared_memory = own_shared_memory
        self._watch = ResourceWatch(Bounds(memory=spec.memory_bytes, tasks=_PROCESSES, nice=_NICE))
        self._measure_at = time.monotonic() + _MEASURE
        self._status: int | None = None
        self._ended_for = ""
        self._too_large = False
        self._killed = False

    def run(self, abandoned: threading.Event) -> ProgramEnd:
        """Run it to its end. Raises Abandoned, OSError."""
        deadline = time.monotonic() + self._spec.timeout
        sandbox = self._sandbox
        over = False
        sandbox.begin()
        self._watch.start(sandbox.first_pid, own_shared_memory=self._own_shared_memory)
        with closing(self._watch), selectors.DefaultSelector() as selector:
            selector.register(sandbox.reports, selectors.EVENT_READ)
            for descriptor in sandbox.outputs[0]:
                splitter = LineSplitter(clock=time.monotonic)
                selector.register(descriptor, selectors.EVENT_READ, splitter)
            # Its outputs are at their end when nothing of it is left.
            while selector.get_map():
                for key, _ in selector.select(_LOOK):
                    if key.data is not None:
                        self._read(selector, key)
                    elif self._take_report():
                        over = True
                        selector.unregister(sandbox.reports)
                if not over:
                    self._look(abandoned, deadline)
        self._measure()
        if abandoned.is_set():
            raise Abandoned
        if self._status is None:
            raise CannotStart("the program ended unseen")
        return ProgramEnd(self._status, self._ended_for, self._too_large)

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, _READ)
        for line in key.data.feed(data) if data else key.data.end():
            self._output(line)
        if not data:
            selector.unregister(key.fd)

    def _take_report(self) -> bool:
        """Take note of what the first process tells; whether it is gone. Raises CannotStart."""
        report = self._sandbox.report()
        if report.error:
            raise CannotStart(report.error)
        self._status = report.ended.get(0, self._status)
        return report.over

    def _look(self, abandoned: threading.Event, deadline: float) -> None:
        """End the program if nobody wants it, or if it goes beyond a bound."""
        if self._killed:
            return
        now = time.monotonic()
        if now >= self._measure_at:
            self._measure()
            self._measure_at = time.monotonic() + max(_MEASURE, _LEISURE * (time.monotonic() - now))
        self._ended_for = self._ended_for or self._watch.reason()
        if now >= deadline:
            self._ended_for = f"had not finished after {self._spec.timeout:g} s"
        if self._ended_for or abandoned.is_set():
            self._killed = True
            self._sandbox.kill()

    def _measure(self) -> None:
        """Note if it has written more than it may."""
        most_bytes, most_files = self._spec.size_bytes, self._spec.files
        use = disk_use(self._own, most_bytes=most_bytes, most_files=most_files)
        if use.size_bytes > most_bytes:
            self._ended_for = f"wrote {in_words(use.size_bytes, most_bytes)} allowed"
            self._too_large = True
        elif use.files > most_files:
            self._ended_for = f"made more than the {most_files} files allowed"
