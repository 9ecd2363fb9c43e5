"""A run of the tests that leaves something behind fails: files, or processes that live on.

A plugin of pytest. Each process that runs tests has a `TMPDIR` of its own, next to pytest's
folders. When the last test is over, that folder is empty, nothing in `/dev/shm` bears the number
of this process, and no process lives that was started here or that works in folders of this run.
What is left is named, with the test during which it appeared, and fails the run.

What else appeared in `/tmp` and `/dev/shm` meanwhile is named alone: another run on the same
machine may have made it.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

_MEMORY: Final = Path("/dev/shm")
_FOLDERS: Final = (Path("/tmp"), _MEMORY)
#: What the project's programs, and those that tests start, call what is theirs there.
_NAMES: Final = re.compile(
    r"(?:scaimind-|b-|org\.chromium\.|faketime_shm_|sem\.faketime_|PostgreSQL\.|tmp).*"
)
#: Seconds within which what was told to end has ended.
_PATIENCE: Final = 20.0
_BEGAN: Final = pytest.StashKey[float]()
_FOUND: Final = pytest.StashKey[list[str]]()
_OWN: Final = pytest.StashKey["Leftovers"]()


class Leftovers:
    """What the tests of one process leave.

    `folder` is the process's `TMPDIR`, `memory` where shared memory is, and `works` are all
    folders of this run: a process with one of their paths in its command line, its environment
    or as its working directory was started by it.
    """

    def __init__(self, folder: Path, *, memory: Path, works: Iterable[Path]) -> None:
        self._folder = folder
        self._memory = memory
        paths = b"|".join(re.escape(os.fsencode(path)) for path in (folder, *works))
        # Not `popen-gw1` in `popen-gw10`.
        self._ours = re.compile(rb"(?:%s)(?![\w.-])" % paths)
        self._number = re.compile(rf"(?<!\d){os.getpid()}(?!\d)")
        #: The test during which each file appeared.
        self._appeared: dict[Path, str] = {}

    def look(self, test: str) -> None:
        """Note what has appeared during a test."""
        for path in self.files():
            self._appeared.setdefault(path, test)

    def files(self) -> Iterator[Path]:
        """What is there now."""
        yield from (Path(entry.path) for entry in os.scandir(self._folder))
        if self._memory.is_dir():
            for entry in os.scandir(self._memory):
                if self._number.search(entry.name):
                    yield Path(entry.path)

    def processes(self) -> Iterator[psutil.Process]:
        """Those that live and that this run has started."""
        own = psutil.Process()
        above = {own.pid, *(each.pid for each in own.parents())}
        below = {each.pid for each in own.children(recursive=True)}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid in above or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.pid in below or self._ours.search(_about(process.pid)):
                    yield process

    def found(self, *, patience: float = _PATIENCE) -> list[str]:
        """Name what is left; wait until nothing is, for `patience` in seconds at most."""
        until = time.monotonic() + patience
        while True:
            files, processes = sorted(self.files()), list(self.processes())
            if not (files or processes) or time.monotonic() >= until:
                break
            time.sleep(0.1)
        named = [f"{path}, since {self._appeared.get(path, 'the last test')}" for path in files]
        return named + [_named(each) for each in processes]


def _about(pid: int) -> bytes:
    """Command line, environment and working directory of a process, as far as they can be read."""
    found = []
    for name in ("cmdline", "environ"):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/{name}").read_bytes())
    with suppress(OSError):
        found.append(os.fsencode(os.readlink(f"/proc/{pid}/cwd")))
    return b"\0".join(found)


def _named(process: psutil.Process) -> str:
    test = re.search(rb"(?:^|\0)PYTEST_CURRENT_TEST=([^\0]*)", _about(process.pid))
    since = os.fsdecode(test[1]) if test else "an unknown test"
    command = ""
    with suppress(psutil.Error):
        command = " ".join(process.cmdline()) or process.name()
    return f"process {process.pid}, since {since}: {command[:300]}"


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory, for what makes directories or files by the thousand.

    It bears the number of this process. A tree of any depth in it goes.
    """
    path = Path(tempfile.mkdtemp(prefix=f"scaimind-{os.getpid()}-", dir=_MEMORY))
    try:
        yield path
    finally:
        _remove(path)


def _remove(folder: Path) -> None:
    # Python's own way ends at the depth of its recursion.
    subprocess.run(["rm", "-rf", folder], check=True)


def left_behind(folders: Iterable[Path], *, since: float) -> list[str]:
    """Return what of such names was made since then, in seconds since 1970."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            continue
        for each in folder.iterdir():
            try:
                # What is written to later has a later time than when it was made.
                made = each.lstat().st_ctime
            except FileNotFoundError:
                continue
            if _NAMES.fullmatch(each.name) and made >= since:
                found.append(str(each))
    return sorted(found)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the process's `TMPDIR`, unless others run the tests for it (pytest-xdist)."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None or config.getoption("dist", "no") != "no":
        return
    works = factory.getbasetemp()
    # Short, for there are sockets in it, whose paths have 107 bytes at most. Every user may use
    # it, as they may `/tmp`: jobs of other users do.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="t-", dir=root))
    folder.chmod(0o1777)
    config.stash[_OWN] = Leftovers(folder, memory=_MEMORY, works=[works])
    patch = pytest.MonkeyPatch()
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", str(folder))
    config.add_cleanup(partial(_remove, folder))
    config.add_cleanup(patch.undo)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note when it began."""
    session.config.stash[_BEGAN] = time.time()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Note what a test has left, or what it has made for those behind it."""
    try:
        return (yield)
    finally:
        if (own := item.config.stash.get(_OWN, None)) is not None:
            own.look(item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for what is left."""
    found = session.config.stash.setdefault(_FOUND, [])
    if (own := session.config.stash.get(_OWN, None)) is not None:
        found += own.found()
    # Several processes share the tests: the one that reports hears of it.
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_behind"] = found
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process that shared the tests has found."""
    found = getattr(node, "workeroutput", {}).get("left_behind", [])
    node.config.stash.setdefault(_FOUND, []).extend(found)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name it."""
    if found := config.stash.get(_FOUND, []):
        terminalreporter.section("left behind by the tests", sep="=", red=True)
        for line in found:
            terminalreporter.line(line)
    for path in left_behind(_FOLDERS, since=config.stash[_BEGAN]):
        terminalreporter.write_line(f"left behind, by this or another run of the tests: {path}")
