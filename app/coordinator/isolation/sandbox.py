"""A run's processes inside their sandbox, as the runner sees them.

Started from the runner's main thread by exec alone: the runner uses libraries
that do not survive a fork, and a parent-death signal belongs to a thread.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from app.coordinator.isolation import bubblewrap, programs
from app.coordinator.isolation.ending.processes import children_of
from app.coordinator.isolation.first_process import ASK_TO_LEAVE, BEGIN, KILL
from app.coordinator.isolation.levels import Level

_READ: Final = 64 * 1024
#: Bytes of what a failed start said that are kept.
_LAST_WORDS: Final = 400


class CannotStart(OSError):
    """The sandbox did not come up; `strerror` says what was refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(1, reason)


@dataclass(slots=True)
class Report:
    """What the first process told since it was last asked."""

    #: Ranks that ended: status, or minus the signal's number.
    ended: dict[int, int] = field(default_factory=dict)
    #: Why a rank could not be started; empty if none failed so.
    error: str = ""
    #: All ranks were started.
    started: bool = False
    #: The first process is gone, and everything that it started.
    over: bool = False

    def followed_by(self, other: "Report") -> "Report":
        """Both as one."""
        return Report(
            ended=self.ended | other.ended,
            error=self.error or other.error,
            started=self.started or other.started,
            over=other.over,
        )


class Sandbox:
    """Owns the first process and the pipes to the ranks. Close it when it is over."""

    def __init__(
        self,
        isolation: dict[str, Any],
        *,
        confinement: dict[str, Any],
        limits: dict[str, Any],
        ranks: Sequence[dict[str, Any]],
        held: Sequence[int] = (),
    ) -> None:
        """Build it, and wait until it could start the ranks: `begin` does that.

        `isolation` and `limits` are the sections of a run's specification.
        Each of the ranks has `argv`, `cwd` and `env`. `held` are descriptors of locks that
        the first process holds, too, and the ranks do not. Raises OSError.
        """
        self._resources = ExitStack()
        #: The ends to read of each rank's stdout and stderr; whoever reads them closes them.
        self.outputs: list[tuple[int, int]] = []
        self._rest = b""
        self._pids: list[int] = []
        self._namespace = isolation["level"] == Level.NAMESPACES
        with ExitStack() as theirs:
            try:
                self._start(isolation, confinement, limits, ranks, theirs, held)
            except BaseException:
                self._resources.close()
                self.discard_outputs()
                raise

    def _start(
        self,
        isolation: dict[str, Any],
        confinement: dict[str, Any],
        limits: dict[str, Any],
        ranks: Sequence[dict[str, Any]],
        theirs: ExitStack,
        held: Sequence[int],
    ) -> None:
        orders, self._orders = self._pipe(theirs, theirs_reads=True)
        reports, self._reports = self._pipe(theirs, theirs_reads=False)
        self._errors = self._memory(b"")
        started = []
        for rank in ranks:
            pair = []
            ends = {}
            for name in ("stdout", "stderr"):
                reader, writer = os.pipe()
                theirs.callback(os.close, writer)
                os.set_blocking(reader, False)
                pair.append(reader)
                ends[name] = writer
            self.outputs.append((pair[0], pair[1]))
            started.append({**rank, **ends})
        spec = self._memory(
            json.dumps(
                {
                    "orders": orders,
                    "reports": reports,
                    "namespace": self._namespace,
                    "uid": isolation["uid"],
                    "filter": isolation["filter"],
                    "confinement": _rules(isolation, confinement),
                    "limits": limits,
                    "ranks": started,
                }
            ).encode()
        )
        inherited = [orders, reports, spec, *held]
        inherited += [rank[name] for rank in started for name in ("stdout", "stderr")]
        command = programs.command("first_process", str(spec))
        information = -1
        if self._namespace:
            # No pipe: if this process were killed, bubblewrap would be by SIGPIPE, and the process
            # that it has started would wait for it for ever.
            information = self._memory(b"")
            command, memories = self._within(isolation, confinement, command, information)
            inherited += [information, *memories]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=inherited,
            # Nothing of this process's environment.
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            cwd="/",
        )
        theirs.close()
        self._await_ready()
        #: Process 1 of the namespace, or the subreaper, as this process sees it.
        self.first_pid = self._process.pid
        if self._namespace:
            self.first_pid = json.loads(os.pread(information, _READ, 0))["child-pid"]

    def _pipe(self, theirs: ExitStack, *, theirs_reads: bool) -> tuple[int, int]:
        """A pipe: their end, ours."""
        reader, writer = os.pipe()
        their, our = (reader, writer) if theirs_reads else (writer, reader)
        theirs.callback(os.close, their)
        self._resources.callback(os.close, our)
        return their, our

    def _memory(self, content: bytes) -> int:
        """A file without a name that has this content."""
        memory = os.memfd_create("sandbox", 0)
        self._resources.callback(os.close, memory)
        os.write(memory, content)
        os.lseek(memory, 0, os.SEEK_SET)
        os.set_inheritable(memory, False)
        return memory

    def _within(
        self,
        isolation: dict[str, Any],
        confinement: dict[str, Any],
        command: list[str],
        information: int,
    ) -> tuple[list[str], list[int]]:
        """The command within new namespaces, and what else it inherits."""
        uid: int | None = isolation["uid"]
        home = confinement["writable"][0]
        passwd, group = bubblewrap.passwd_of(os.getuid() if uid is None else uid, home)
        memories = [self._memory(passwd.encode()), self._memory(group.encode())]
        view = bubblewrap.View(
            readable=[*confinement["readable"], *programs.FILES],
            writable=[path for path in confinement["writable"] if path != isolation["temporary"]],
            listed=programs.FOLDERS,
            temporary=isolation["temporary"],
            devices=isolation["devices"],
            shared_memory=isolation["shared_memory"],
            network=isolation["network"],
            uid=uid,
            passwd=memories[0],
            group=memories[1],
        )
        flags = [*bubblewrap.arguments(view), "--info-fd", str(information)]
        if uid is None:
            flags = ["--unshare-user", "--disable-userns", *flags]
        told = self._memory(b"".join(os.fsencode(flag) + b"\0" for flag in flags))
        within = [isolation["bwrap"], "--args", str(told), "--", *command]
        if uid is not None:
            within = programs.command("user_namespace", str(uid), *within)
        return within, [*memories, told]

    def _await_ready(self) -> None:
        """Raises CannotStart, with what was said on the way."""
        while b"\n" not in self._rest:
            data = os.read(self._reports, _READ)
            if not data:
                self._process.wait()
                size = os.fstat(self._errors).st_size
                said = os.pread(self._errors, _LAST_WORDS, max(size - _LAST_WORDS, 0))
                words = said.decode("utf-8", "replace").strip().splitlines()
                raise CannotStart(words[-1] if words else "the sandbox did not start")
            self._rest += data
        self._rest = self._rest.partition(b"\n")[2]

    @property
    def reports(self) -> int:
        """The descriptor that can be read when `report` has something new."""
        return self._reports

    @property
    def process_pids(self) -> list[int]:
        """What was started from here and has to be gone when a run is over: the first process,
        and bubblewrap's own."""
        return list(dict.fromkeys((self.first_pid, self._process.pid)))

    def begin(self) -> None:
        """Start the ranks."""
        self._order(BEGIN)

    def ask_to_leave(self) -> None:
        """SIGTERM to each rank that lives."""
        self._order(ASK_TO_LEAVE)

    def kill(self) -> None:
        """SIGKILL to the ranks and all that they started."""
        self._order(KILL)

    def _order(self, order: bytes) -> None:
        with suppress(BrokenPipeError):
            os.write(self._orders, order)

    def report(self) -> Report:
        """What was told meanwhile; waits if there is nothing."""
        found = Report()
        data = os.read(self._reports, _READ)
        if not data:
            self._process.wait()
            found.over = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in map(json.loads, lines):
            found.error = found.error or line.get("error", "")
            if "pids" in line:
                found.started = True
                self._pids = line["pids"]
            if "rank" in line:
                found.ended[line["rank"]] = line["status"]
        return found

    def rank_pids(self) -> list[int]:
        """The ranks that live, by number, as this process sees them; empty before they started."""
        if not self._namespace:
            return self._pids
        seen = {_inner_pid(pid): pid for pid in children_of(self.first_pid)}
        return [seen[pid] for pid in self._pids if pid in seen]

    def end(self) -> Report:
        """Kill everything, and wait until it is gone; all that was told meanwhile."""
        self.kill()
        return self.wait()

    def wait(self) -> Report:
        """Wait until everything is gone; all that was told meanwhile."""
        found = Report()
        while not found.over:
            found = found.followed_by(self.report())
        return found

    def discard_outputs(self) -> None:
        """Close the outputs without reading them."""
        for pair in self.outputs:
            for descriptor in pair:
                os.close(descriptor)
        self.outputs.clear()

    def close(self) -> None:
        """Let go of it; what still lives there ends."""
        self._resources.close()
        self._process.wait()


def _rules(isolation: dict[str, Any], confinement: dict[str, Any]) -> dict[str, Any]:
    """What Landlock is told."""
    if isolation["level"] == Level.NONE:
        return {"readable": ["/"], "writable": ["/"]}
    if isolation["level"] != Level.NAMESPACES:
        return confinement
    writable = [path for path in confinement["writable"] if path != isolation["temporary"]]
    return {"readable": confinement["readable"], "writable": [*writable, "/tmp"]}


def _inner_pid(pid: int) -> int:
    """The number that a process has in its own namespace; 0 if it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0
