"""Notes of the moments at which lines pass on their way, made by the programs they pass.

The programs know nothing of it: in a folder on their PYTHONPATH, `sitecustomize`
calls `install`, which wraps functions of modules as these are imported. A note
costs about a microsecond, and is in its file even when the process is killed.
"""

import functools
import importlib.util
import itertools
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

#: Time in nanoseconds since 1970, number of a line, hop, job.
_NOTE: Final = struct.Struct("<qqB7x40s")
_MOST: Final = 200_000
#: Of a hop that knows the job alone.
UNKNOWN: Final = -1

#: The number that a hop's notes have is that of the line on its node; behind these, the offset in
#: the job's log. `shift` says what one is more than the other.
JOURNAL, NOTICED, LOOKED, READ, SENT, RECEIVED, THREAD, STORED, SHIFT, TOLD, TAKEN = range(11)
BY_OFFSET: Final = frozenset((TAKEN,))


@dataclass(frozen=True, slots=True)
class Note:
    """A line, or several up to a number, have passed."""

    at: int
    number: int
    hop: int
    job_id: str


class _Notes:
    """Those of one process, in a file of its own in `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._places = itertools.count()
        self._map: mmap.mmap | None = None
        self._process = 0
        self._opening = threading.Lock()

    def add(self, hop: int, job_id: str, number: int = UNKNOWN, *, at: int = 0) -> None:
        at = at or time.time_ns()
        if self._process != os.getpid():
            with self._opening:
                if self._process != os.getpid():
                    self._open()
        assert self._map is not None
        place = next(self._places)
        if place < _MOST:
            _NOTE.pack_into(self._map, place * _NOTE.size, at, number, hop, job_id.encode())

    def _open(self) -> None:
        path = f"{self._folder}/{os.getpid()}-{time.time_ns()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, _MOST * _NOTE.size)
            self._map = mmap.mmap(file, _MOST * _NOTE.size)
        finally:
            os.close(file)
        self._places = itertools.count()
        # Last: from here on other threads note there.
        self._process = os.getpid()


def read_notes(folder: Path) -> Iterator[Note]:
    """Yield what all processes have noted."""
    for path in folder.iterdir():
        for at, number, hop, job_id in _NOTE.iter_unpack(path.read_bytes()):
            if not at:
                break
            yield Note(at, number, hop, job_id.rstrip(b"\0").decode())


def hooked(folder: Path, notes: Path) -> Path:
    """Make a folder for PYTHONPATH by which programs note in the folder `notes`; returns it."""
    (folder / "sitecustomize.py").write_text(
        "from scripts.bench.live_lines.hops import install\n"
        f"install({str(notes)!r}, {str(folder)!r})\n"
    )
    return folder


def install(notes: str, hook: str) -> None:
    """Have this process note what it passes on. `hook` is the folder that `hooked` has made."""
    sys.meta_path.insert(0, _Finder(_Notes(notes), hook))


class _Finder(MetaPathFinder):
    """Finds the modules of `_WRAPPED`, whose functions are wrapped once they are imported."""

    def __init__(self, notes: _Notes, hook: str) -> None:
        self._notes = notes
        self._wrapped = dict(_WRAPPED)
        self._wrapped["app.coordinator.engines.local.launcher"] = functools.partial(
            _wrap_launcher, hook=hook
        )

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wrap = self._wrapped.pop(name, None)
        if wrap is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader, functools.partial(wrap, notes=self._notes))
        return spec


class _Wrapping(Loader):
    def __init__(self, loader: Loader, wrap: Callable[[Any], None]) -> None:
        self._loader = loader
        self._wrap = wrap

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._wrap(module)


def _wrap_launcher(module: Any, notes: _Notes, *, hook: str) -> None:
    # Runners get this process's PYTHONPATH from it alone.
    module._PACKAGE_ROOT = os.pathsep.join((hook, str(module._PACKAGE_ROOT)))


def _wrap_recording(module: Any, notes: _Notes) -> None:
    write = module.Recorder.write

    def written(self: Any) -> None:
        before = self.log.last_offset
        write(self)
        if self.log.last_offset > before:
            notes.add(JOURNAL, self._log_directory.parent.name, self.log.last_offset)

    module.Recorder.write = written


def _wrap_notifications(module: Any, notes: _Notes) -> None:
    init = module.NotificationReceiver.__init__

    def made(self: Any, path: Path, tell: Callable[[str], None]) -> None:
        def told(job_id: str) -> None:
            notes.add(NOTICED, job_id)
            tell(job_id)

        init(self, path, told)

    module.NotificationReceiver.__init__ = made


def _wrap_records(module: Any, notes: _Notes) -> None:
    init, read = module.RecordsReader.__init__, module.RecordsReader.read

    def made(self: Any, job: Any) -> None:
        self._job_of_notes = job.path.name
        init(self, job)

    def done(self: Any, **places: int) -> Any:
        began = time.time_ns()
        found = read(self, **places)
        if found.line_count:
            notes.add(LOOKED, self._job_of_notes, found.line_behind, at=began)
            notes.add(READ, self._job_of_notes, found.line_behind)
        return found

    module.RecordsReader.__init__ = made
    module.RecordsReader.read = done


def _wrap_agent_stream(module: Any, notes: _Notes) -> None:
    from generated.mindcoordinator.v1.watch_pb2 import WatchJobResponse

    watch_run = module.watch_run

    async def watched(agent: Any, run: Any, **places: Any) -> AsyncIterator[Any]:
        messages = watch_run(agent, run, **places)
        try:
            async for message in messages:
                at = time.time_ns()
                if message.lines:
                    count = len(WatchJobResponse.FromString(message.lines).logs)
                    notes.add(RECEIVED, run.job_id, message.first_line + count - 1, at=at)
                yield message
        finally:
            await messages.aclose()

    module.watch_run = watched


def _wrap_merging(module: Any, notes: _Notes) -> None:
    init, add_lines = module.MergedRecords.__init__, module.MergedRecords.add_lines

    def made(self: Any, run: Any, node_id: str, **bounds: Any) -> None:
        self._job_of_notes = run.job.path.name
        init(self, run, node_id, **bounds)

    def added(self: Any, source: int, first: int, entries: Sequence[Any]) -> None:
        began = time.time_ns()
        add_lines(self, source, first, entries)
        last = first + len(entries) - 1
        notes.add(THREAD, self._job_of_notes, last, at=began)
        notes.add(STORED, self._job_of_notes, last)
        if source == 0:
            notes.add(SHIFT, self._job_of_notes, self._log.last_offset - last)

    module.MergedRecords.__init__ = made
    module.MergedRecords.add_lines = added


def _wrap_events(module: Any, notes: _Notes) -> None:
    wake = module.JobEvents.wake

    def woken(self: Any, job_id: str) -> None:
        notes.add(TOLD, job_id)
        wake(self, job_id)

    module.JobEvents.wake = woken


def _wrap_watch(module: Any, notes: _Notes) -> None:
    read = module._read

    def done(place: Any, job_id: str, damage: Any) -> Any:
        batch = read(place, job_id, damage)
        if batch.logs:
            notes.add(TAKEN, job_id, batch.logs[-1].offset)
        return batch

    module._read = done


_WRAPPED: Final[dict[str, Callable[..., None]]] = {
    "app.coordinator.engines.local.runner.recording": _wrap_recording,
    "app.coordinator.engines.local.notifications": _wrap_notifications,
    "app.coordinator.engines.agent.records": _wrap_records,
    "app.coordinator.engines.remote.agent_stream": _wrap_agent_stream,
    "app.coordinator.engines.remote.records.merging": _wrap_merging,
    "app.coordinator.jobs.events": _wrap_events,
    "app.coordinator.service.logs.watch": _wrap_watch,
}
