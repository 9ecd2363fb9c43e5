"""What a job reaches of the machine at each level of isolation: docs/security.md has the table."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from app.coordinator.isolation.levels import Level
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from tests.coordinator.harness import Client, status_of
from tests.coordinator.scripts import COUNTS, counted, counting
from tests.hostile.canary import Canary
from tests.hostile.machine import NEIGHBOUR, Machine
from tests.hostile.places import Place, machine_at, places
from tests.hostile.wellbeing import all_is_well
from tests.processes import pid_lives

#: Tries everything, and says for each what came of it.
TRIES = """
    import ctypes, json, os, resource, signal, socket
    canary, victim, path_socket, abstract = json.loads(os.environ["TARGETS"])
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *arguments):
        result = libc.syscall(number, *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def connect(address):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)

    def clone(flags):
        # A child would go on here.
        if call(56 if os.uname().machine == "x86_64" else 220, flags | 17, 0, 0, 0, 0) == 0:
            os._exit(0)

    x86 = os.uname().machine == "x86_64"
    harms = {
        "read": lambda: open(canary).read(),
        "write": lambda: open(canary, "a"),
        "truncate": lambda: os.truncate(canary, 0),
        "link": lambda: os.link(canary, "linked"),
        "stat": lambda: os.stat(canary),
        "chmod": lambda: os.chmod(canary, 0o640),
        "chown": lambda: os.chown(canary, os.getuid(), os.getgid()),
        "utime": lambda: os.utime(canary, ns=(1, 1)),
        "setxattr": lambda: os.setxattr(canary, "user.harm", b"1"),
        "signal": lambda: os.kill(victim, 0),
        "prlimit": lambda: resource.prlimit(victim, resource.RLIMIT_CPU, (3600, 3600)),
        "ptrace": lambda: call(101 if x86 else 117, 16, victim, 0, 0),
        "environ": lambda: open(f"/proc/{victim}/environ").read(),
        "path socket": lambda: connect(path_socket),
        "abstract socket": lambda: connect("\\0" + abstract),
        "unshare": lambda: call(272 if x86 else 97, 0x10000000),
        "clone": lambda: clone(0x10000000),
        "io_uring": lambda: call(425, 1, ctypes.create_string_buffer(120)),
        "keyring": lambda: call(250 if x86 else 219, 0, -5, 1),
        "userfaultfd": lambda: call(323 if x86 else 282, 1),
        "bpf": lambda: call(321 if x86 else 280, 0, None, 0),
        "core_pattern": lambda: open("/proc/sys/kernel/core_pattern", "r+"),
        "drop_caches": lambda: open("/proc/sys/vm/drop_caches", "r+"),
        "kill first process": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "setuid": lambda: os.setuid(victim % 1000 + 1),
    }
    found = {}
    for name, harm in harms.items():
        try:
            harm()
        except OSError as error:
            found[name] = error.strerror
        else:
            found[name] = "done"
    print("found", json.dumps(found))
"""
#: What stays possible, by level. At `none` nothing is asked but that the machine survives.
POSSIBLE = {
    Level.NAMESPACES: set(),
    # The paths are those of the machine: what its modes allow to everybody is allowed.
    Level.USER: {"stat"},
    # One user for all: what Landlock has no right for.
    Level.LANDLOCK: {"stat", "chmod", "chown", "utime", "setxattr", "path socket"},
}
#: Leaves its session twice over and ignores what can be ignored.
ESCAPES = """
    import os, signal, subprocess, sys, textwrap, time
    code = textwrap.dedent('''
        import os, signal, sys, time
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setsid()
        print("away", flush=True)
        while True:
            open(sys.argv[2], "a").write("x")
            time.sleep(0.01)
    ''')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    output = os.environ["SCAIMIND_OUTPUT_DIR"] + "/trace"
    keep = {} if "KEEP" in os.environ else {"env": {}}
    subprocess.Popen([sys.executable, "-c", code, os.environ["MARK"], output], **keep)
"""
#: What it does behind that.
STAYS = "    time.sleep(600)\n"


@pytest.fixture(scope="module", params=places(), ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture(scope="module")
def machine(place: Place) -> Iterator[Machine]:
    with machine_at(place) as machine:
        yield machine


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the tests' user."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


def marked(mark: str) -> list[psutil.Process]:
    """The processes with this argument."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if mark in (process.info["cmdline"] or ())
    ]


async def finished(client: Client, script: str, **changes: Any) -> list[str]:
    """What a job said that had to complete."""
    job_id = await client.submit(script, **changes)
    job = await client.end(job_id)
    lines = [entry.message for entry in await client.log(job_id)]
    assert status_of(job) == "COMPLETED", (job.error_message, lines)
    return lines


async def test_what_a_job_reaches(
    machine: Machine, place: Place, victim: subprocess.Popen[bytes]
) -> None:
    canary = Canary.at(machine.path.parent / "canary" / "secret")
    if not place.own_user:
        # Worth a try: a file of the coordinator's own user.
        owner = machine.path.stat()
        os.chown(canary.path, owner.st_uid, owner.st_gid)
        canary = Canary(canary.path, canary.text, ())
    name = f"harm-{secrets.token_hex(8)}"
    path = str(machine.path.parent / "sock")
    with (
        socket.socket(socket.AF_UNIX) as path_socket,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        path_socket.bind(path)
        os.chmod(path, 0o777)
        abstract.bind(f"\0{name}")
        for listener in (path_socket, abstract):
            listener.listen()
        targets = json.dumps([str(canary.path), victim.pid, path, name])
        async with machine.client() as client:
            lines = await finished(
                client, TRIES, training_config={"environment": {"TARGETS": targets}}
            )
    assert victim.poll() is None
    os.unlink(path)
    (line,) = [line for line in lines if line.startswith("found ")]
    found = json.loads(line.removeprefix("found "))
    if place.level is not Level.NONE:
        done = {harm for harm, result in found.items() if result == "done"}
        # Of root's own files, the read-only ones are refused by their modes.
        assert done - {"path socket"} <= POSSIBLE[place.level], found
        assert "path socket" not in done or place.level is not Level.NAMESPACES, found
        assert canary.path.read_text() == canary.text
        canary.is_unread(machine.path)
    if place.own_user:
        canary.is_untouched()
    for harm in ("unshare", "clone", "io_uring", "keyring", "userfaultfd", "bpf"):
        assert found[harm] in ("Operation not permitted", "Function not implemented"), found


async def test_what_leaves_its_session_ends_with_its_job(machine: Machine) -> None:
    async def ends(client: Client, way: str) -> None:
        mark = f"mark-{secrets.token_hex(8)}"
        then = STAYS
        if way in ("crash", "exit"):
            end = "os.kill(os.getpid(), 11)" if way == "crash" else "sys.exit(0)"
            # Its trace comes behind what it says.
            then = f"    while not os.path.exists(output):\n        time.sleep(0.01)\n    {end}\n"
        job_id = await client.submit(
            ESCAPES + then,
            training_config={"environment": {"MARK": mark}},
            scheduling_config={"max_runtime_seconds": 15 if way == "time limit" else 0},
        )
        await client.until_line(job_id, "away")
        if way == "pause":
            await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
            await client.until_status(job_id, "PAUSED")
            assert not marked(mark), way
        if way in ("pause", "cancel"):
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        assert not marked(mark), way

    async with machine.client() as client:
        ways = ("pause", "cancel", "time limit", "crash", "exit")
        await asyncio.gather(*(ends(client, way) for way in ways))


async def test_a_pause_saves_a_checkpoint_and_a_resume_goes_on(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit(COUNTS, training_config={"environment": counting(60, 5)})
        await client.until_line(job_id, "count 5")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        job = await client.until_status(job_id, "PAUSED")
        assert len(job.checkpoints) == 1
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "COMPLETED"
        assert counted(await client.log(job_id)) == list(range(1, 61))


async def test_a_signal_is_told_as_a_signal_and_a_status_as_a_status(machine: Machine) -> None:
    script = """
        import ctypes, os, sys
        print("here", flush=True)
        if os.environ["WAY"] == "status":
            sys.exit(77)
        ctypes.string_at(0)
    """

    async def ends(client: Client, way: str, code: int, runs: int) -> None:
        job_id = await client.submit(
            script, training_config={"max_retries": 1, "environment": {"WAY": way}}
        )
        job = await client.end(job_id)
        assert (job.exit_code, job.run_count) == (code, runs), job
        assert ("signal 11" in job.error_message) is (way == "signal")

    async with machine.client() as client:
        await asyncio.gather(ends(client, "signal", -11, 2), ends(client, "status", 77, 1))


async def test_ranks_share_memory_and_abstract_sockets(machine: Machine) -> None:
    script = """
        import os, socket, time
        rank, path = int(os.environ["RANK"]), f"/dev/shm/{os.environ['SCAIMIND_JOB_ID']}"
        name = "\\0" + os.environ["SCAIMIND_JOB_ID"]
        if rank == 0:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name)
                listener.listen()
                with open(path + ".new", "w") as file:
                    file.write("shared")
                os.rename(path + ".new", path)
                print("got", listener.accept()[0].recv(10).decode())
        else:
            while not os.path.exists(path):
                time.sleep(0.01)
            print("read", open(path).read())
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(name)
                client.sendall(b"hello")
            os.unlink(path)
    """
    async with machine.client() as client:
        lines = await finished(
            client, script, training_config={"framework": {"distributed": {"world_size": 2}}}
        )
    assert {"got hello", "read shared"} <= set(lines)


async def test_what_training_needs_works(machine: Machine) -> None:
    script = """
        import getpass, multiprocessing, os, subprocess, sys, tempfile
        def square(n):
            return n * n
        if __name__ == "__main__":
            import numpy
            with multiprocessing.Manager() as manager:
                shared = manager.dict(a=1)
                assert dict(shared) == {"a": 1}
            for kind in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(kind).Pool(2) as pool:
                    assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
            print("user", getpass.getuser())
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "list"]
            done = subprocess.run(pip, capture_output=True, text=True)
            print("pip", done.returncode, done.stderr)
            print(open("/etc/debian_version").read() if os.path.exists("/etc") else "")
    """
    async with machine.client() as client:
        lines = await finished(client, script)
    assert "pip 0 " in lines


async def test_inputs_that_others_may_not_read_are_readable_for_their_job(
    machine: Machine,
) -> None:
    script = """
        import json, os
        config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
        print("data", open(config["data_config"]["sources"][0]["local_path"]).read())
        model = config["training_config"]["base_model"]["local_path"]
        print("model", open(model + "/deep/weights").read())
    """
    owner = machine.path.stat()
    async with machine.client() as client:
        data = client.write("private.jsonl", "mine")
        client.write("model/deep/weights", "heavy")
        own = client.drive / client.tenant
        for name, mode in (
            ("private.jsonl", 0o600),
            ("model/deep/weights", 0o600),
            ("model/deep", 0o700),
            ("model", 0o700),
        ):
            os.chown(own / name, owner.st_uid, owner.st_gid)
            os.chmod(own / name, mode)
        lines = await finished(
            client,
            script,
            data_config={"sources": [{"path": data}]},
            training_config={"base_model": {"model_id": f"scaidrive://{client.tenant}/model"}},
        )
    assert {"data mine", "model heavy"} <= set(lines)


async def test_a_killed_runner_leaves_nothing(machine: Machine, place: Place) -> None:
    mark = f"mark-{secrets.token_hex(8)}"
    async with machine.client() as client:
        # Where nothing holds processes together but its variables, a process keeps those.
        keep = {} if place.level in (Level.NAMESPACES, Level.USER) else {"KEEP": "1"}
        job_id = await client.submit(
            ESCAPES + STAYS, training_config={"environment": {"MARK": mark, **keep}}
        )
        await client.until_line(job_id, "away")
        about = json.loads(
            (machine.path / "jobs" / job_id / "runs" / "1" / "runner.json").read_bytes()
        )
        psutil.Process(about["pid"]).kill()
        assert status_of(await client.end(job_id)) == "FAILED"
        assert not marked(mark)
        assert not [each for each in about["sandbox"] if pid_lives(each["pid"])]
    await all_is_well(machine, job_id)


async def test_a_job_cannot_kill_what_it_belongs_to(machine: Machine) -> None:
    script = """
        import os, re, signal, time

        def parent(pid):
            found = re.search(r"PPid:\\s+(\\d+)", open(f"/proc/{pid}/status").read())
            return int(found[1]) or 1

        def is_leaving(pid):
            # What has started this program is a copy of the first process, and ends by itself.
            try:
                above = parent(pid)
                commands = {open(f"/proc/{each}/cmdline").read() for each in (pid, above)}
            except OSError:
                return True
            return pid != above and (len(commands) == 1 or "" in commands)

        while is_leaving(first := os.getppid()):
            time.sleep(0.01)
        for pid in (first, parent(first)):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                print("refused", error)
    """
    async with machine.client() as client:
        lines = await finished(client, script)
    assert len([line for line in lines if line.startswith("refused ")]) == 2, lines


@pytest.mark.parametrize("victims", ["first process", "both"])
async def test_what_a_killed_first_process_started_ends(
    machine: Machine, place: Place, victims: str
) -> None:
    mark = f"mark-{secrets.token_hex(8)}"
    keep = {} if place.level in (Level.NAMESPACES, Level.USER) else {"KEEP": "1"}
    async with machine.client() as client:
        job_id = await client.submit(
            ESCAPES + STAYS, training_config={"environment": {"MARK": mark, **keep}}
        )
        await client.until_line(job_id, "away")
        about = json.loads(
            (machine.path / "jobs" / job_id / "runs" / "1" / "runner.json").read_bytes()
        )
        killed = [about["sandbox"][0]["pid"]]
        if victims == "both":
            killed.insert(0, about["pid"])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert "killed" in job.error_message
        assert not marked(mark)


async def test_runners_killed_while_they_start_leave_nothing(
    machine: Machine, place: Place
) -> None:
    """At four moments of the half second that a run needs to begin."""
    moments = range(0, 12, 3)
    async with machine.client() as client:
        for moment in moments:
            job_id = await client.submit("import time; time.sleep(600)")
            runner = await asyncio.to_thread(_runner_of, machine, job_id)
            await asyncio.sleep(moment * 0.03)
            runner.kill()
            await client.end(job_id)
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if _is_ours(process.info["cmdline"] or []) and _is_of(process, machine)
    ]
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def _runner_of(machine: Machine, job_id: str) -> psutil.Process:
    """The job's runner, as soon as there is one."""
    assert machine.process is not None
    marker = str(machine.path / "jobs" / job_id / "runs")
    while True:
        for process in psutil.Process(machine.process.pid).children():
            try:
                if process.environ().get("SCAIMIND_RUN_DIRECTORY", "").startswith(marker):
                    return process
            except psutil.Error:
                continue


def _is_of(process: psutil.Process, machine: Machine) -> bool:
    """Whether a machine's coordinator or something that descends from it started the process."""
    try:
        return machine.mark in process.environ().get("PATH", "").split(os.pathsep)
    except psutil.NoSuchProcess:
        return False


def _is_ours(command: list[str]) -> bool:
    text = " ".join(command)
    return "bwrap" in text or "first_process" in text or "user_namespace" in text


async def test_files_in_shared_memory_go_with_their_job(machine: Machine, place: Place) -> None:
    if not place.own_user and place.level is not Level.NAMESPACES:
        pytest.xfail("files of one user for all cannot be told apart")
    name = f"left-{secrets.token_hex(8)}"
    async with machine.client() as client:
        await finished(client, f"open('/dev/shm/{name}', 'w').write('x')")
    assert name not in os.listdir("/dev/shm")


async def test_a_job_of_another_tenant_is_taken_up(machine: Machine, place: Place) -> None:
    async with machine.client() as client, machine.client(NEIGHBOUR) as other:
        await finished(client, "print('mine')")
        await finished(other, "print('mine, too')")
