"""Other ways to be in the way, at every level: none of them concerns anybody but the job itself."""

import pytest

from tests.coordinator.harness import TERMINAL, status_of
from tests.hostile.cases import script
from tests.hostile.machine import Machine
from tests.hostile.wellbeing import all_is_well

_TRY = """
import fcntl, resource, shutil, signal, socket, subprocess, time
def attempt(act, *arguments, **more):
    try:
        return act(*arguments, **more)
    except (OSError, ValueError) as error:
        print("refused:", error)
def instead(path, make):
    attempt(os.unlink, path)
    attempt(shutil.rmtree, path, True)
    attempt(os.rename, path, path + ".gone")
    attempt(make, path)
def bind(path):
    os.chdir(os.path.dirname(path))
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.path.basename(path))
"""

ATTACKS = {
    "a FIFO instead of the metrics": "instead(M, os.mkfifo)",
    "a link instead of the metrics": "instead(M, lambda path: os.symlink('/dev/zero', path))",
    "a directory instead of the metrics": "instead(M, os.mkdir)",
    "a socket instead of the metrics": "instead(M, bind)",
    "metrics without permissions": "measure('{\"step\": 1}'); attempt(os.chmod, M, 0)",
    "metrics that shrink and grow": """
for _ in range(200):
    measure(*['{"step": 1, "loss": 2}'] * 500)
    os.truncate(M, 7)
""",
    "metrics of holes": "attempt(os.truncate, M, 1 << 31)",
    "60,000 lines of metrics": (
        'measure(*(json.dumps({"step": n, "loss": 1.0}) for n in range(60_000)))'
    ),
    "links instead of all directories": """
for folder in (O, C, T, os.getcwd()):
    instead(folder, lambda path: os.symlink("/", path))
""",
    "files instead of all directories": """
for folder in (O, C, T, os.getcwd()):
    instead(folder, lambda path: open(path, "w"))
""",
    "FIFOs instead of all directories": """
for folder in (O, C, T, os.getcwd()):
    instead(folder, os.mkfifo)
""",
    "directories without permissions": """
for folder in (O, C, T, os.getcwd()):
    os.makedirs(folder + "/step-1/x")
    open(folder + "/step-1/x/y", "w").write("x")
    for each in ("/step-1/x/y", "/step-1/x", "/step-1", ""):
        attempt(os.chmod, folder + each, 0)
""",
    "directories that everybody may write": """
for folder in (O, C, T, os.getcwd(), os.path.dirname(O), os.path.dirname(M)):
    attempt(os.chmod, folder, 0o7777)
""",
    "times out of all calendars": """
for at, moment in enumerate((-(1 << 40), -1, 0, (1 << 34) - 1, 1 << 40, (1 << 62) // 10**9)):
    for folder in (O, C):
        os.mkdir(f"{folder}/step-{at}")
        open(f"{folder}/step-{at}/model.bin", "w").write("x")
        attempt(os.utime, f"{folder}/step-{at}/model.bin", (moment, moment))
        attempt(os.utime, f"{folder}/step-{at}", (moment, moment))
""",
    "locks on everything": """
for folder, _, names in [*os.walk(O), *os.walk(os.path.dirname(O)), *os.walk(C)]:
    for name in names:
        file = attempt(os.open, folder + "/" + name, os.O_RDWR)
        if file is not None:
            attempt(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            attempt(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
file = os.open(M, os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
fcntl.lockf(file, fcntl.LOCK_EX)
attempt(fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
measure('{"step": 1}')
""",
    "set-user-id files": """
open(O + "/run", "w").write("#!/bin/sh\\n")
os.chmod(O + "/run", 0o6777)
os.mkdir(C + "/step-1", 0o777)
shutil.copy("/bin/true", C + "/step-1/true")
os.chmod(C + "/step-1/true", 0o6755)
""",
    "extended attributes and access lists": """
for folder in (O, C):
    open(folder + "/file", "w").write("x")
    attempt(os.setxattr, folder + "/file", "user.big", b"x" * 3000)
    acl = bytes.fromhex("0200000001000600ffffffff04000000ffffffff20000000ffffffff")
    attempt(os.setxattr, folder, "system.posix_acl_default", acl)
    attempt(os.setxattr, folder + "/file", "security.capability", b"\\x01" * 20)
    attempt(fcntl.ioctl, os.open(folder, os.O_RDONLY), 0x40086602, b"\\x10" + b"\\0" * 7)
""",
    "15 MiB of output at once": """
block = (b"x" * 99 + b"\\n") * 10_000
for _ in range(15):
    os.write(1, block[:65536])
    os.write(2, block)
""",
    "an endless line": """
for _ in range(50):
    os.write(1, b"x" * (1 << 20))
""",
    "writers that have left and go on": """
for _ in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        while True:
            os.write(1, b"still here\\n" * 100)
""",
    "outputs closed, and a sleeping grandchild that has them": """
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
for number in range(3, 256):
    attempt(os.close, number)
os.close(1); os.close(2)
os._exit(0)
""",
    "a stopped parent": """
attempt(os.kill, os.getppid(), signal.SIGSTOP)
attempt(os.kill, os.getppid(), signal.SIGTERM)
attempt(os.killpg, 0, signal.SIGCONT)
""",
    "signals to everybody": """
for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGKILL):
    attempt(os.kill, -1, number) if os.getuid() else None
""",
    "a stop of itself that a child ends": """
me = os.getpid()
if os.fork() == 0:
    time.sleep(1)
    os.kill(me, signal.SIGCONT)
    os._exit(0)
os.kill(me, signal.SIGSTOP)
""",
    "a large argument list": """
subprocess.run([sys.executable, "-c", "pass", *["x" * 100_000] * 15], check=True)
os.execve(sys.executable, [sys.executable, "-c", "print('again')"],
          {f"X{number}": "x" * 100_000 for number in range(15)})
""",
    "limits of its own": """
for name in ("NOFILE", "FSIZE", "CPU", "CORE", "STACK"):
    attempt(resource.setrlimit, getattr(resource, "RLIMIT_" + name), (1 << 20, 1 << 20))
attempt(resource.setrlimit, resource.RLIMIT_NOFILE, (0, 0))
""",
    "a core that is dumped": """
attempt(resource.setrlimit, resource.RLIMIT_CORE, (1 << 30, 1 << 30))
os.kill(os.getpid(), signal.SIGQUIT)
""",
    "the first to be killed": (
        'attempt(lambda: open("/proc/self/oom_score_adj", "w").write("-1000"))'
    ),
    "150 processes": """
for _ in range(150):
    if attempt(os.fork) == 0:
        time.sleep(600)
""",
    "checkpoints that come and go": """
until = time.monotonic() + 2
while time.monotonic() < until:
    for at in range(20):
        os.makedirs(f"{C}/step-{at}/a/b", exist_ok=True)
        attempt(os.rename, f"{C}/step-{at}", f"{C}/step-{at + 1}")
        attempt(os.rename, f"{C}/step-{at + 1}/a", f"{C}/step-{at}")
        shutil.rmtree(f"{C}/step-{at}", True)
""",
    "a tree that moves while it is left": """
for at in range(20):
    os.makedirs(f"{O}/{at}/a/b/c/d")
if os.fork() == 0:
    os.setsid()
    while True:
        for at in range(20):
            attempt(os.rename, f"{O}/{at}/a/b", f"{O}/{at}-b")
            attempt(os.rename, f"{O}/{at}-b", f"{O}/{at}/a/b")
""",
    "names that look like paths, options and ends of lines": """
for folder in (O, C):
    for name in ("-rf", "--", "~", "*", "a\\nb", "..x", "...", " ", "\\\\", "step-1\\r", "%00"):
        os.mkdir(folder + "/" + name)
        open(f"{folder}/{name}/-rf", "w").write("x")
""",
    "sockets and FIFOs everywhere": """
for folder in (O, C, T):
    os.mkdir(folder + "/step-1")
    os.mkfifo(folder + "/step-1/fifo")
    attempt(bind, folder + "/step-1/socket")
""",
    "large files that are holes": """
for folder in (O, C):
    os.mkdir(folder + "/step-1")
    attempt(lambda: os.truncate(os.open(folder + "/step-1/big", os.O_CREAT | os.O_RDWR), 1 << 28))
""",
    "3,000 hard links to one file": """
open(O + "/0", "w").write("x")
for at in range(1, 3_000):
    os.link(O + "/0", f"{O}/{at}")
""",
    "watches on everything": """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(200):
    file = libc.inotify_init()
    for folder in (O, C, T, "/proc", "/"):
        libc.inotify_add_watch(file, folder.encode(), 0xFFF)
""",
}


@pytest.mark.levels("namespaces", "user", "landlock")
async def test_they_harm_nobody_else(isolated: Machine) -> None:
    async with isolated.client() as client:
        # Side by side, as far as the machine has room: each is a neighbour of the others.
        job_ids = [
            await client.submit(
                script(_TRY + body),
                name=name[:60],
                output_config={"register_model": True, "model_name": "attack"},
            )
            for name, body in ATTACKS.items()
        ]
    for name, told in zip(ATTACKS, await all_is_well(isolated, *job_ids), strict=True):
        assert status_of(told.job) in TERMINAL, name
        assert status_of(told.job) == "COMPLETED" or told.job.error_message, name
