"""Paths that a job changes: whatever it lays there, nobody writes or reads through it."""

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from tests.coordinator.harness import status_of
from tests.hostile.canary import Canary
from tests.hostile.machine import HOSTILE, Machine, machine_on
from tests.hostile.wellbeing import all_is_well

#: Lays links to a canary under every name that the coordinator writes for a job, or once wrote.
LAYS_LINKS = """
    import os, signal, sys, time
    canary = {canary!r}
    work = os.getcwd()
    script = os.path.basename(sys.argv[0])
    names = [
        "." + script + ".partial", script, script + ".new", "config.json.new",
        ".model.bin.partial", ".newest.partial", "manifest.json", "program",
    ]
    for folder in (work, os.environ["SCAIMIND_OUTPUT_DIR"], os.environ["SCAIMIND_CHECKPOINT_DIR"],
                   os.environ["TMPDIR"], os.path.dirname(work), os.path.dirname(work) + "/program",
                   os.path.dirname(os.environ["SCAIMIND_METRICS_FILE"])):
        for name in names:
            try:
                if os.path.lexists(folder + "/" + name):
                    os.unlink(folder + "/" + name)
                os.symlink(canary, folder + "/" + name)
            except OSError:
                pass
    for folder in ("work", "output", "tmp", "program"):
        try:
            os.rename(os.path.dirname(work) + "/" + folder, work + "/moved-" + folder)
            os.symlink(os.path.dirname(canary), os.path.dirname(work) + "/" + folder)
        except OSError:
            pass
"""


def lays_links(canary: Canary, then: str) -> str:
    """A script that lays links, unless it ran before; `then` is what it does in its first run."""
    return (
        LAYS_LINKS.format(canary=str(canary.path))
        + f"""
    mark = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/ran"
    if os.path.exists(mark):
        print("again")
        sys.exit()
    open(mark, "w").close()
    {then}
"""
    )


def untouched(machine: Machine, canary: Canary) -> None:
    canary.is_untouched()
    canary.is_unread(machine.path)


async def test_a_link_under_a_name_of_the_script_is_not_written_through_at_a_retry(
    machine: Machine, tmp_path: Path
) -> None:
    """Escape 1."""
    canary = Canary.at(tmp_path / "canary" / "secret")
    async with machine.client() as client:
        job_id = await client.submit(
            lays_links(canary, "os.kill(os.getpid(), signal.SIGKILL)"),
            training_config={"max_retries": 1},
        )
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED", told.job
    assert "again" in told.messages
    untouched(machine, canary)


async def test_a_link_under_a_name_of_the_script_is_not_written_through_at_a_resumption(
    machine: Machine, tmp_path: Path
) -> None:
    """Escape 1, the other way."""
    canary = Canary.at(tmp_path / "canary" / "secret")
    async with machine.client() as client:
        job_id = await client.submit(lays_links(canary, 'print("ready"); time.sleep(600)'))
        await client.until_line(job_id, "ready")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id))
        await client.until_status(job_id, "PAUSED")
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED", told.job
    untouched(machine, canary)


async def test_the_script_lies_where_the_job_cannot_write(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit("""
            import os, sys
            script = os.path.abspath(sys.argv[0])
            for harm in (
                lambda: os.truncate(script, 0),
                lambda: os.unlink(script),
                lambda: os.rename(script, script + ".old"),
                lambda: os.mkdir(os.path.dirname(script) + "/sitecustomize"),
            ):
                try:
                    harm()
                    print("harmed")
                except OSError as error:
                    print("refused")
        """)
    (told,) = await all_is_well(machine, job_id)
    assert told.messages.count("refused") == 4
    assert "harmed" not in told.messages


async def test_an_export_into_another_jobs_checkpoints_follows_no_link(
    machine: Machine, tmp_path: Path
) -> None:
    """Escape 2."""
    canary = Canary.at(tmp_path / "canary" / "secret")
    async with machine.client() as client:
        lays = await client.submit(
            f"""
            import os, time
            canary = {str(canary.path)!r}
            for out in ("out", "linked"):
                out = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/" + out
                os.mkdir(out)
                os.symlink(canary, out + "/.model.bin.partial")
                os.symlink(canary, out + "/model.bin")
            os.symlink(os.path.dirname(canary), out + "/folder")
            print("ready")
            time.sleep(600)
            """
        )
        await client.until_line(lays, "ready")
        exports = """
            import os
            os.makedirs(os.environ["SCAIMIND_OUTPUT_DIR"] + "/{folder}")
            for name in ("model.bin", "{folder}/secret"):
                open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/" + name, "w").write("harm")
        """
        jobs = {
            out: await client.submit(
                exports.format(folder=folder),
                output_config={"path": f"scaidrive://{HOSTILE}/jobs/{lays}/checkpoints/{out}"},
            )
            for out, folder in (("out", "fine"), ("linked", "folder"))
        }
        for job_id in jobs.values():
            await client.end(job_id)
        await client.call("CancelJob", CancelJobRequest(job_id=lays))
    out, linked, _ = await all_is_well(machine, jobs["out"], jobs["linked"], lays)
    assert status_of(out.job) == "COMPLETED", out.job
    assert status_of(linked.job) == "FAILED", linked.job
    checkpoints = machine.drive / HOSTILE / "jobs" / lays / "checkpoints"
    model = checkpoints / "out" / "model.bin"
    assert await asyncio.to_thread(lambda: (model.is_symlink(), model.read_text())) == (
        False,
        "harm",
    )
    untouched(machine, canary)


#: Leaves a process behind, in a session of its own, that swaps files for links for a while.
SWAPS = """
    import ctypes, fcntl, os, signal, sys, time
    canary, output = {canary!r}, os.environ["SCAIMIND_OUTPUT_DIR"]
    names = [f"file-{{number:03}}" for number in range(150)]
    for name in names:
        open(output + "/" + name, "w").write("own")
        os.mkdir(output + "/d-" + name)
        open(output + "/d-" + name + "/secret", "w").write("own")
        os.symlink(os.path.dirname(canary), output + "/l-" + name)
    libc = ctypes.CDLL(None)
    def exchange(one, other):
        libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
    # Held for as long as the process lives that is left behind.
    fcntl.flock(os.open(output + "/held", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in (0, 1, 2):
            os.close(number)
        # Until the test or the end of the namespace ends it.
        while not os.path.exists(output + "/stop"):
            # In one step each, so that nothing is ever missing.
            for name in names:
                os.symlink(canary, output + "/.link")
                os.rename(output + "/.link", output + "/" + name)
                exchange(output + "/d-" + name, output + "/l-" + name)
            for name in names:
                open(output + "/.own", "w").write("own")
                os.rename(output + "/.own", output + "/" + name)
                exchange(output + "/d-" + name, output + "/l-" + name)
        os._exit(0)
    time.sleep(0.2)
"""


def end_swapping(output: Path) -> None:
    """Wait until the process that a script left behind is gone, if it was not ended before."""
    # Where the export went well, the output is gone, once nothing of the job lived any more.
    with suppress(FileNotFoundError):
        (output / "stop").touch()
        with open(output / "held") as held:
            fcntl.flock(held, fcntl.LOCK_EX)


@pytest.mark.parametrize("export_format", ["", "tar.gz"])
async def test_files_swapped_for_links_while_they_are_exported_are_not_followed(
    machine: Machine, tmp_path: Path, export_format: str
) -> None:
    """Escape 3."""
    canary = Canary.at(tmp_path / "canary" / "secret")
    async with machine.client() as client:
        jobs = [
            await client.submit(
                SWAPS.format(canary=str(canary.path)),
                output_config={
                    "export_format": export_format,
                    "register_model": True,
                    "model_name": f"swapped-{number}",
                },
            )
            for number in range(2)
        ]
    told = await all_is_well(machine, *jobs)
    for job_id in jobs:
        await asyncio.to_thread(end_swapping, machine.path / "jobs" / job_id / "output")
    # A directory that is moved while it is read may fail an export.
    assert {status_of(each.job) for each in told} <= {"COMPLETED", "FAILED"}
    canary.is_untouched()
    canary.is_unread(machine.drive)
    if (atlas := machine.path / "atlas").exists():
        canary.is_unread(atlas)


ODD_OUTPUTS = {
    "directories 1,500 deep": """
        here = O
        os.chdir(O)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    """,
    "thousands of files": """
        for folder in range(60):
            os.mkdir(f"{O}/{folder}")
            for file in range(99):
                open(f"{O}/{folder}/{file}", "w").close()
    """,
    "special files and links": """
        import socket
        os.chdir(O)
        os.mkfifo("pipe")
        socket.socket(socket.AF_UNIX).bind("socket")
        os.symlink("/etc/passwd", "link")
        os.symlink("nowhere", "broken")
        os.symlink(".", "loop")
        open("model.txt", "w").write("a model")
    """,
    "names of 255 bytes": """
        open(O + "/" + "n" * 255, "w").write("long")
        os.mkdir(O + "/" + "d" * 255)
        open(O + "/" + "d" * 255 + "/" + "\\u20ac" * 85, "w").write("long")
    """,
    "names that are not UTF-8": """
        open(O.encode() + b"/m\\xff.bin", "w").write("a model")
        os.mkdir(O.encode() + b"/d\\xfe")
        open(O.encode() + b"/d\\xfe/\\n\\x1b[31m", "w").write("a model")
    """,
    "closed directories": """
        os.makedirs(O + "/a/b")
        open(O + "/a/b/file", "w").close()
        for path in ("/a/b/file", "/a/b", "/a"):
            os.chmod(O + path, 0)
    """,
    "a sparse file of 1 TiB": """
        file = os.open(O + "/sparse", os.O_CREAT | os.O_WRONLY)
        os.truncate(file, 1 << 40)
    """,
    "sparse files with two names": """
        file = os.open(O + "/sparse", os.O_CREAT | os.O_WRONLY)
        os.pwrite(file, b"middle", 1 << 26)
        os.truncate(file, 1 << 28)
        os.link(O + "/sparse", O + "/second")
    """,
}


async def test_a_checkpoint_that_becomes_a_link_shows_nothing_to_whoever_resumes_from_it(
    machine: Machine, tmp_path: Path
) -> None:
    canary = Canary.at(tmp_path / "canary" / "secret")
    neighbours = Canary.at(machine.drive / "alice" / "folder" / "secret")
    async with machine.client() as client:
        swaps = await client.submit(f"""
            import ctypes, os
            C = os.environ["SCAIMIND_CHECKPOINT_DIR"]
            libc = ctypes.CDLL(None)
            os.mkdir(C + "/step-1")
            os.symlink({str(canary.path.parent)!r}, C + "/a")
            os.symlink({str(neighbours.path.parent)!r}, C + "/b")
            print("ready")
            while True:
                for link in ("/a", "/b"):
                    for _ in range(2):
                        libc.renameat2(
                            -100, (C + "/step-1").encode(), -100, (C + link).encode(), 2
                        )
        """)
        await client.until_line(swaps, "ready")
        resumed: list[str] = []
        while len(resumed) < 5:
            with suppress(grpc.RpcError):  # it is a link at the moment
                resumed.append(
                    await client.submit(
                        """
                        import os, time
                        path = os.environ["SCAIMIND_RESUME_FROM"]
                        for _ in range(2000):
                            for name in ("", "/secret", "/../a/secret", "/../b/secret"):
                                try:
                                    print(open(path + name).read())
                                except OSError:
                                    pass
                        """,
                        training_config={
                            "resume_from_checkpoint": f"scaidrive://{HOSTILE}/jobs/{swaps}"
                            "/checkpoints/step-1"
                        },
                    )
                )
        for job_id in resumed:
            await client.end(job_id)
        await client.call("CancelJob", CancelJobRequest(job_id=swaps))
    told = await all_is_well(machine, *resumed, swaps)
    for secret in (canary, neighbours):
        secret.is_untouched()
        assert not [each for each in told if any(secret.text in line for line in each.messages)]


def odd_output(name: str) -> str:
    return f"""
        import os
        O = os.environ["SCAIMIND_OUTPUT_DIR"]
{ODD_OUTPUTS[name]}
    """


@pytest.mark.parametrize("registered", [False, True], ids=["exported", "registered"])
@pytest.mark.parametrize("name", ODD_OUTPUTS)
async def test_an_odd_output_ends_its_job_and_nothing_else(
    machine: Machine, name: str, registered: bool
) -> None:
    model = "odd-" + "-".join(name.lower().replace(",", "").split())
    output = {"register_model": True, "model_name": model} if registered else {}
    async with machine.client() as client:
        job_id = await client.submit(odd_output(name), output_config=output)
    (told,) = await all_is_well(machine, job_id)
    exported = machine.drive / HOSTILE / "jobs" / job_id / "output"
    outcomes: dict[str, tuple[str, Callable[[], object]]] = {
        "directories 1,500 deep": ("FAILED", lambda: told.lines("more than 64 deep")),
        "thousands of files": ("COMPLETED", lambda: len(list(exported.glob("*/*"))) == 5_940),
        "special files and links": (
            "COMPLETED",
            lambda: (
                told.lines(
                    "Left out of the artefacts",
                    "broken (symbolic link), link (symbolic link), loop (symbolic link), "
                    "pipe (special file), socket (special file).",
                )
                and os.listdir(exported) == ["model.txt"]
            ),
        ),
        "names of 255 bytes": ("COMPLETED", lambda: len(os.listdir(exported)) == 2),
        "names that are not UTF-8": (
            "COMPLETED",
            lambda: sorted(os.listdir(os.fsencode(exported))) == [b"d\xfe", b"m\xff.bin"],
        ),
        # Only root can read them then.
        "closed directories": ("COMPLETED" if os.geteuid() == 0 else "FAILED", lambda: True),
        # By what a job may write, or by what it may export.
        "a sparse file of 1 TiB": ("FAILED", lambda: True),
        "sparse files with two names": ("COMPLETED", lambda: same_and_sparse(exported)),
    }
    expected, check = outcomes[name]
    assert (status_of(told.job), bool(check())) == (expected, True), told


@pytest.mark.parametrize("export_format", ["", "tar.gz"])
async def test_what_a_job_exports_has_a_bound(tmp_path: Path, export_format: str) -> None:
    with machine_on(tmp_path / "data", export_bytes="1GiB", export_files="100") as machine:
        async with machine.client() as client:
            sparse, many = [
                await client.submit(
                    f"""
                    import os
                    os.chdir(os.environ["SCAIMIND_OUTPUT_DIR"])
                    {script}
                    """,
                    output_config={"export_format": export_format},
                )
                for script in (
                    'os.truncate(os.open("sparse", os.O_CREAT | os.O_WRONLY), 1 << 31)',
                    '[open(str(number), "w").close() for number in range(101)]',
                )
            ]
        first, second = await all_is_well(machine, sparse, many)
        for told, reason in ((first, "more than 1073741824 bytes"), (second, "more than 100")):
            assert status_of(told.job) == "FAILED"
            assert told.lines(reason), told.messages


def same_and_sparse(exported: Path) -> bool:
    first, second = (exported / name for name in ("sparse", "second"))
    about = first.stat()
    return (
        about.st_ino == second.stat().st_ino
        and about.st_size == 1 << 28
        and about.st_blocks * 512 < 1 << 20
    )


async def test_a_manifest_tells_names_that_are_not_utf8(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit(
            odd_output("names that are not UTF-8"),
            output_config={"register_model": True, "model_name": "bytes"},
        )
    (told,) = await all_is_well(machine, job_id)
    assert told.lines("The model is registered as scaiatlas://mallory/bytes@1.")
    manifest = machine.path / "atlas" / HOSTILE / "bytes" / "1" / "manifest.json"
    files = json.loads(await asyncio.to_thread(manifest.read_text))["files"]
    assert [(file["path"], file["path_base64"]) for file in files] == [
        ("d\\xfe/\\n\\x1b[31m", "ZP4vChtbMzFt"),
        ("m\\xff.bin", "bf8uYmlu"),
    ]


DEEP_PLACES = ("SCAIMIND_CHECKPOINT_DIR", "TMPDIR")


@pytest.mark.parametrize("place", DEEP_PLACES)
async def test_deep_directories_elsewhere_do_no_harm(machine: Machine, place: str) -> None:
    async with machine.client() as client:
        job_id = await client.submit(
            f"""
            import os
            os.mkdir(os.environ["{place}"] + "/step-1")
            os.chdir(os.environ["{place}"] + "/step-1")
            for _ in range(1500):
                os.mkdir("d")
                os.chdir("d")
            os.mkdir(os.environ["{place}"] + "/step-2")
            """,
            output_config={"max_checkpoints": 1},
        )
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED", told.job
    directory = machine.path / "jobs" / job_id
    assert "tmp" not in await asyncio.to_thread(os.listdir, directory)


async def test_a_coordinator_that_is_killed_while_it_exports_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    with machine_on(tmp_path / "data") as machine:
        async with machine.client() as client:
            job_id = await client.submit("""
                import os
                for number in range(3000):
                    open(os.environ["SCAIMIND_OUTPUT_DIR"] + f"/{number}", "w").write("x" * 1000)
            """)
            await client.until_status(job_id, "EXPORTING", "COMPLETED")
        machine.stop(signal.SIGKILL)
        machine.start()
        (told,) = await all_is_well(machine, job_id)
        assert status_of(told.job) == "COMPLETED", told.job
        job = machine.drive / HOSTILE / "jobs" / job_id
        assert sorted(await asyncio.to_thread(os.listdir, job)) == ["checkpoints", "output"]
        assert len(await asyncio.to_thread(os.listdir, job / "output")) == 3000
