"""The processes of a job's user id: ends them all at once, and asks for them.

As a program, see `programs`, with the argument UID it kills every process of that id once.
"""

import contextlib
import errno
import os
import platform
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

from app.coordinator.isolation import kernel, programs

#: Seconds between two rounds of killing.
_PAUSE: Final = 0.002
#: Rounds in a row that leave nothing, before nothing is left.
_QUIET: Final = 3
#: The number of setresuid(2). The C library's function changes all threads of a process.
_SETRESUID: Final = {"x86_64": 117, "aarch64": 147, "riscv64": 147, "ppc64le": 169, "s390x": 208}
#: Ids from here on are given to nobody (systemd's UIDS-GIDS), so each id of a job has its own
#: counterpart there, of which nothing runs.
_APART: Final = 1 << 31


def kill_all_of(uid: int) -> None:
    """Kill every process of a user id at once, so that none forks away. Raises OSError.

    Needs no new process, since a job may have taken all that there can be. Only
    the calling thread acts for the id. Call as root.
    """
    try:
        with _acting_for(uid):
            _kill_all()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # In a user namespace that has few ids, or on a processor whose call is not known here.
        _kill_by_program(uid)


@contextlib.contextmanager
def _acting_for(uid: int) -> Iterator[None]:
    """Let the thread signal the processes of a user id, and no others.

    A process may signal those whose real or saved id is its real or effective
    one (kill(2)). So the effective id is the job's, the real one is nobody's, and
    the saved one leads back: the job may signal this thread at no moment.
    """
    if os.getresuid() != (0, 0, 0):
        raise PermissionError(errno.EPERM, "only root can end the processes of another user")
    capabilities = kernel.capabilities()
    dumpable = kernel.is_dumpable()
    ids = (uid ^ _APART, uid, 0)
    try:
        _set_thread_ids(*ids)
        # They are gone with the id, unless this process was started with securebits.
        kernel.set_capabilities((0, *capabilities[1:3], 0, *capabilities[4:]))
        if os.getresuid() != ids:
            raise PermissionError(errno.EPERM, f"the id {uid} cannot be acted for")
        yield
    finally:
        try:
            if os.getresuid() != (0, 0, 0):
                _set_thread_ids(0, 0, 0)
            kernel.set_capabilities(capabilities)
            # A change of the effective id has set it by fs.suid_dumpable.
            (kernel.make_dumpable if dumpable else kernel.make_undumpable)()
        except OSError:
            # Nothing may go on in the name of a job.
            os._exit(1)


def _set_thread_ids(real: int, effective: int, saved: int) -> None:
    """setresuid(2) for the calling thread alone. Raises OSError."""
    number = _SETRESUID.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "the number of setresuid is not known here")
    kernel.checked(kernel.libc.syscall(*map(kernel.as_register, (number, real, effective, saved))))


def _kill_all() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def _kill_by_program(uid: int) -> None:
    """Kill the processes of a user id once, by a program that runs under it.

    They may signal it, too: then it has killed none, or not all. Raises OSError.
    """
    command = programs.command("ending.user_processes", str(uid))
    pid = os.posix_spawn(command[0], command, {"PATH": os.defpath})
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    elif os.WIFEXITED(status) and status:
        raise PermissionError(errno.EPERM, f"the processes of user {uid} cannot be ended")


def end_all_of(uid: int, *, patience: float) -> bool:
    """Kill the processes of a user id until none is left; False if some do not end.

    `patience` is in seconds. What they left in `/dev/shm` goes, too. Blocks. Raises OSError.
    """
    deadline = time.monotonic() + patience
    quiet = 0
    while quiet < _QUIET:
        # Before anybody is asked for: what forks fast enough is in no list of `/proc`, and what
        # was killed does not fork.
        kill_all_of(uid)
        quiet = 0 if pids_of(uid) else quiet + 1
        if not quiet and time.monotonic() > deadline:
            return False
        # Not `time.sleep`, which waits for a moment of the clock: libfaketime, with which the
        # coordinator is tried, refuses that.
        select.select((), (), (), _PAUSE)
    remove_shared_memory(uid)
    return True


def pids_of(uid: int) -> list[int]:
    """The processes of a user id that have not ended, as far as they live for a moment."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file,
        ):
            status = dict(line.split(":", 1) for line in file if ":" in line)
            if int(status["Uid"].split()[0]) == uid and _lives(status):
                found.append(int(name))
    return found


def _lives(status: dict[str, str]) -> bool:
    # A first thread that has ended is a zombie while others of its process live.
    return status["State"].strip()[0] not in "ZX" or int(status.get("Threads", "1")) > 1


def remove_shared_memory(uid: int) -> None:
    """Remove what a user id, of which nothing runs any more, left in `/dev/shm`."""
    with contextlib.suppress(FileNotFoundError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    os.unlink(entry.path)


def main() -> int:
    """Kill the processes of the user id that is the argument, once."""
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.keep_capabilities(0)
    _kill_all()
    return 0
