"""What belongs to others, and the system's, is out of a job's reach."""

import asyncio
import os
import resource
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.coordinator.harness import SECRET, status_of
from tests.hostile.canary import Canary
from tests.hostile.cases import script
from tests.hostile.machine import Machine
from tests.hostile.wellbeing import all_is_well

#: What a script says of each thing that it tries.
_TRIES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try:
        what = act()
    except OSError as error:
        print(name, "refused:", error.strerror)
    except Exception as error:
        print(name, "refused:", type(error).__name__)
    else:
        print(name, "DONE", str(what)[:80])
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


@contextmanager
def somebody_else() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of the job's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def what_it_did(machine: Machine, body: str) -> list[str]:
    """The lines of a script that tries things."""
    async with machine.client() as client:
        job_id = await client.submit(script(_TRIES + body))
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED", "\n".join(told.messages)
    assert not [line for line in told.messages if " DONE " in line and line[0] != "("], (
        told.messages
    )
    return [line for line in told.messages if "refused" in line]


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_files_of_others(isolated: Machine) -> None:
    canary = Canary.at(isolated.path.parent / "others" / "secret")
    if isolated.settings["isolation"] == "landlock":
        # What Landlock has no right for is named in docs/security.md.
        owners = times = ""
    else:
        owners = 'attempt("chmod", lambda: os.chmod(P, 0o666))\n'
        owners += 'attempt("chown", lambda: os.chown(P, 12345, 12345))\n'
        times = 'attempt("utime", lambda: os.utime(P, (1, 1)))\n'
        times += 'attempt("setxattr", lambda: os.setxattr(P, "user.x", b"x"))\n'
    refused = await what_it_did(
        isolated,
        f"""
P = {str(canary.path)!r}
F = os.path.dirname(P)
{owners}{times}
attempt("read", lambda: open(P).read())
attempt("write", lambda: open(P, "r+"))
attempt("truncate", lambda: os.truncate(P, 0))
attempt("list", lambda: os.listdir(F))
attempt("unlink", lambda: os.unlink(P))
attempt("rename", lambda: os.rename(P, P + "2"))
attempt("link", lambda: os.link(P, O + "/x"))
attempt("make", lambda: open(F + "/made", "w"))
attempt("mkfifo", lambda: os.mkfifo(F + "/fifo"))
attempt("through proc", lambda: open("/proc/1/root" + P).read())
attempt("through cwd", lambda: open("/proc/%d/cwd" % os.getppid() + P).read())
""",
    )
    assert len(refused) >= 11
    canary.is_untouched()
    canary.is_unread(isolated.path)


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_the_coordinators_own_files(isolated: Machine) -> None:
    data = isolated.path
    refused = await what_it_did(
        isolated,
        f"""
D = {str(data)!r}
J = D + "/jobs/" + os.environ["SCAIMIND_JOB_ID"]
attempt("database", lambda: open(D + "/coordinator.db", "rb").read(1))
attempt("database for writing", lambda: open(D + "/coordinator.db", "r+b"))
attempt("beside the database", lambda: open(D + "/coordinator.db-journal", "w"))
attempt("lock of the owner", lambda: open(D + "/owner.lock", "r+"))
attempt("jobs", lambda: os.listdir(D + "/jobs"))
attempt("own lock", lambda: open(J + "/lock", "r+"))
attempt("own log", lambda: os.listdir(J + "/log"))
attempt("own log for writing", lambda: open(J + "/log/entries", "ab"))
attempt("own end", lambda: open(J + "/runs/1/exit.json", "w"))
attempt("own spec", lambda: open(J + "/runs/1/run.json").read())
attempt("own program", lambda: open(sys.argv[0], "a"))
attempt("own config", lambda: open(os.environ["SCAIMIND_JOB_CONFIG"], "a"))
attempt("secrets", lambda: os.listdir(D + "/secrets"))
attempt("drive", lambda: os.listdir(D + "/drive"))
attempt("atlas", lambda: os.listdir(D + "/atlas"))
""",
    )
    assert len(refused) == 15


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_processes_of_others(isolated: Machine) -> None:
    with somebody_else() as process:
        before = resource.prlimit(process.pid, resource.RLIMIT_CPU)
        nice = os.getpriority(os.PRIO_PROCESS, process.pid)
        coordinator = isolated.process
        assert coordinator is not None
        await what_it_did(
            isolated,
            f"""
import resource, signal
for who in ({process.pid}, {coordinator.pid}, os.getppid()):
    if who <= 1:
        continue
    attempt(f"limit {{who}}", lambda: resource.prlimit(who, resource.RLIMIT_CPU, (1, 1)))
    attempt(f"kill {{who}}", lambda: os.kill(who, signal.SIGKILL))
    attempt(f"environment {{who}}", lambda: open(f"/proc/{{who}}/environ", "rb").read(1))
    attempt(f"memory {{who}}", lambda: open(f"/proc/{{who}}/mem", "rb"))
    attempt(f"descriptors {{who}}", lambda: os.readlink(f"/proc/{{who}}/fd/0"))
    attempt(f"trace {{who}}", lambda: call(101, 16, who, 0, 0))
    attempt(f"oom {{who}}", lambda: open(f"/proc/{{who}}/oom_score_adj", "w").write("1000"))
attempt("core_pattern", lambda: open("/proc/sys/kernel/core_pattern", "w"))
attempt("drop_caches", lambda: open("/proc/sys/vm/drop_caches", "w"))
attempt("sysrq", lambda: open("/proc/sysrq-trigger", "w"))
""",
        )
        assert process.poll() is None
        assert coordinator.poll() is None
        assert resource.prlimit(process.pid, resource.RLIMIT_CPU) == before
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == nice


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_kill_of_everybody_ends_the_job_alone(isolated: Machine) -> None:
    with somebody_else() as process:
        async with isolated.client() as client:
            job_id = await client.submit(script("os.kill(-1, 9)"))
        await all_is_well(isolated, job_id)
        assert process.poll() is None


# Landlock has no right for connecting to a socket's path.
@pytest.mark.levels("namespaces", "user")
async def test_sockets_of_others(isolated: Machine) -> None:
    folder = isolated.path.parent / "sockets"
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    # The machine has one such name for all; another test process may be here, too.
    name = f"of-somebody-else-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as abstract:
        listening.bind(str(folder / "socket"))
        listening.listen()
        abstract.bind(f"\0{name}")
        abstract.listen()
        await what_it_did(
            isolated,
            f"""
import socket
attempt("path", lambda: socket.socket(socket.AF_UNIX).connect({str(folder / "socket")!r}))
attempt("notices", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(
    {str(isolated.path / "notify.sock")!r}))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0{name}"))
""",
        )


@pytest.mark.levels("namespaces")
async def test_what_the_kernel_has_more(isolated: Machine) -> None:
    await what_it_did(
        isolated,
        """
attempt("user namespace", lambda: call(272, 0x10000000))
attempt("mount namespace", lambda: call(272, 0x00020000))
attempt("add_key", lambda: call(248, b"user", b"x", b"x", 1, -4))
attempt("request_key", lambda: call(249, b"user", b"x", None, -4))
attempt("keyctl", lambda: call(250, 0, -3, 1))
attempt("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(120)))
attempt("userfaultfd", lambda: call(323, 0))
attempt("bpf", lambda: call(321, 0, ctypes.create_string_buffer(72), 72))
attempt("perf", lambda: call(298, ctypes.create_string_buffer(112), 0, -1, -1, 0))
attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None))
attempt("setns", lambda: call(308, os.open("/proc/self/ns/mnt", os.O_RDONLY), 0))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("mknod", lambda: os.mknod(O + "/device", 0o60666, os.makedev(252, 0)))
attempt("raise a limit", lambda: __import__("resource").setrlimit(7, (1 << 30, 1 << 30)))
attempt("write beside the system", lambda: open("/usr/planted", "w"))
attempt("write into site-packages", lambda: open(os.path.dirname(json.__file__) + "/x", "w"))
""",
    )


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_the_coordinators_secret(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script(
                """
import glob
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        print(path, open(path, "rb").read())
    except OSError:
        pass
"""
            )
        )
    (told,) = await all_is_well(isolated, job_id)
    assert not [line for line in told.messages if SECRET in line]
