"""A job that is a folder: its copy for each run, its arguments, and what is refused."""

import io
import json
import os
import sqlite3
import tarfile
import textwrap
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
)
from tests.coordinator.harness import Client, running, status_of
from tests.coordinator.projects import failed, job, messages, submitted
from tests.coordinator.test_all_problems_functional import fields_of, refusal

TRAIN = """
    import os, sys
    import helper
    from lib.deep import DEEP
    print("arguments", sys.argv[1:])
    print("imported", helper.NAME, DEEP)
    print("read", open("data/words.txt").read())
    print("here", sorted(set(os.listdir(".")) - {"__pycache__"}))
    open("made-here", "w").close()
"""


def project(client: Client, path: str = "project", **files: str) -> str:
    """Put a folder into the tenant's folder; returns its URL."""
    for name, text in {"train.py": TRAIN, **files}.items():
        client.write(f"{path}/{name}", text)
    return f"scaidrive://{client.tenant}/{path}"


FILES = {"helper.py": "NAME = 'beside'", "lib/deep.py": "DEEP = 'below'", "data/words.txt": "w"}


def pack(client: Client, name: str, files: Mapping[str, str]) -> str:
    target = client.drive / client.tenant / name
    with tarfile.open(target, "w:gz") as archive:
        for path, text in files.items():
            content = textwrap.dedent(text).encode()
            about = tarfile.TarInfo(path)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return f"scaidrive://{client.tenant}/{name}"


@pytest.mark.parametrize("form", ["folder", "archive", "URL below the folder"])
async def test_a_job_is_a_folder_with_arguments(tmp_path: Path, form: str) -> None:
    async with running(tmp_path) as (_, client):
        folder = project(client, **FILES)
        script = "./train.py"
        if form == "archive":
            folder = pack(client, "project.tar.gz", {"./train.py": TRAIN, **FILES})
        elif form == "URL below the folder":
            script = f"{folder}/train.py"
        job_id = await submitted(
            client, job(script, working_dir=folder, arguments="--name 'two words'", other="kept")
        )
        said = await messages(client, job_id)
        done = await client.end(job_id)

        assert status_of(done) == "COMPLETED", said
        assert "arguments ['--name', 'two words']" in said
        assert "imported beside below" in said
        assert "read w" in said
        assert "here ['data', 'helper.py', 'lib', 'train.py']" in said
        told = dict(done.training_config.framework.config)
        assert told == {"working_dir": folder, "arguments": "--name 'two words'", "other": "kept"}
        own = tmp_path / "jobs" / job_id
        # The copy is gone with its run.
        assert not (own / "project").exists()
        config = json.loads((own / "config.json").read_text())
        assert config["training_config"]["framework"]["config"] == told


async def test_each_run_has_a_copy_of_its_own(tmp_path: Path) -> None:
    waits = """
        import os, signal, sys, time
        print("marks", open("mark").read(), os.path.exists("made"), flush=True)
        open("made", "w").close()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if os.environ["SCAIMIND_RESUME_FROM"] or open("mark").read() == "new":
            sys.exit(0)
        print("waits", flush=True)
        time.sleep(600)
    """
    async with running(tmp_path) as (_, client):
        folder = project(client, **{"train.py": waits, "mark": "old"})
        job_id = await submitted(client, job("train.py", working_dir=folder))
        await client.until_line(job_id, "waits")
        # The run goes on with its copy, whatever becomes of what it is a copy of.
        client.write("project/mark", "new")
        (own,) = (tmp_path / "jobs" / job_id).glob("project")
        assert (own / "mark").read_text() == "old"
        await client.call("PauseJob", PauseJobRequest(job_id=job_id))
        await client.until_status(job_id, "PAUSED")
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        said = await messages(client, job_id)

    assert [line for line in said if line.startswith("marks")] == [
        "marks old False",
        "marks new False",
    ]


async def test_a_retry_has_the_folder_and_the_arguments(tmp_path: Path) -> None:
    fails = """
        import os, sys
        print("arguments", sys.argv[1:], flush=True)
        sys.exit(os.path.exists("fails"))
    """
    async with running(tmp_path) as (_, client):
        folder = project(client, **{"train.py": fails, "fails": ""})
        job_id = await submitted(client, job("train.py", working_dir=folder, arguments="a 'b c'"))
        assert status_of(await client.end(job_id)) == "FAILED"
        (client.drive / "local/project/fails").unlink()
        child = await client.call("RetryJob", RetryJobRequest(job_id=job_id))
        said = await messages(client, child.job_id)
        assert status_of(await client.end(child.job_id)) == "COMPLETED", said

    assert "arguments ['a', 'b c']" in said


async def test_what_earlier_versions_accepted_means_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        script = client.write("train.py", "import sys; print('arguments', sys.argv[1:])")
        request = job(script, arguments="a b")
        request.scheduling_config.not_before.FromSeconds(int(time.time()) + 3600)
        job_id = await submitted(client, request)
    with closing(sqlite3.connect(tmp_path / "coordinator.db")) as db, db:
        db.execute(
            "UPDATE jobs SET state = json_set(json_remove(state, '$.program'), '$.not_before', 0)"
        )
    async with running(tmp_path) as (_, client):
        said = await messages(client, job_id)

    assert "arguments []" in said


async def test_a_script_of_its_own_runs_in_the_folder(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        folder = project(client, **FILES)
        script = client.write("elsewhere.py", "print(open('data/words.txt').read())")
        job_id = await submitted(client, job(script, working_dir=folder, arguments='["a b"]'))
        said = await messages(client, job_id)

    assert "w" in said


async def test_links_and_special_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        folder = project(client, **{"train.py": "import os; print(sorted(os.listdir('.')))"})
        place = client.drive / client.tenant / "project"
        (place / "secrets").symlink_to("/etc/passwd")
        os.mkfifo(place / "pipe")
        job_id = await submitted(client, job("train.py", working_dir=folder))
        said = await messages(client, job_id)

    assert "['train.py']" in said
    assert (
        "Left out of the working directory, of which only regular files and directories are"
        " copied: pipe (special file), secrets (symbolic link)." in said
    )


async def test_a_folder_over_its_bounds_fails_the_job(tmp_path: Path) -> None:
    async with running(tmp_path, working_dir_bytes=2000, working_dir_files=5) as (_, client):
        folder = project(client, **{"train.py": "", "large": "x" * 2001})
        assert "more than 2000 bytes (settings working_dir_bytes" in await failed(
            client, job("train.py", working_dir=folder)
        )
        many = project(client, "many", **{"train.py": "", **{f"f{n}": "" for n in range(5)}})
        assert "more than 5 files" in await failed(client, job("train.py", working_dir=many))
        archive = pack(client, "a.tgz", {"train.py": "", "large": "x" * 2001})
        assert "its files have more than 2000 bytes" in await failed(
            client, job("train.py", working_dir=archive)
        )


async def test_a_hostile_archive_fails_the_job_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        archive = pack(client, "a.tar.gz", {"train.py": "", "../../evil": ""})
        assert "is not unpacked: '../../evil' leads out of it." in await failed(
            client, job("train.py", working_dir=archive)
        )
        lacking = pack(client, "b.tar.gz", {"other.py": ""})
        assert "'train.py' is not a file in the working directory" in await failed(
            client, job("train.py", working_dir=lacking)
        )

        assert not list(client.drive.parent.rglob("evil"))


INVALID: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "an open quote": (
        "train.py",
        {"arguments": "--a 'b"},
        {"arguments": "the quote ' at character 5 is never closed"},
    ),
    "a script that leads out": (
        "../train.py",
        {},
        {"custom_script_path": "'../train.py' is not a plain path in the working directory"},
    ),
    "packages without a folder": (
        "scaidrive://local/project/train.py",
        {"working_dir": "", "requirements": "requirements.txt"},
        {"requirements": "set working_dir as well"},
    ),
    "a relative script without a folder": (
        "train.py",
        {"working_dir": ""},
        {"custom_script_path": "nor in a framework.config.working_dir"},
    ),
    "a path of the machine": (
        "train.py",
        {"working_dir": "/etc"},
        {"working_dir": "is not of the form scaidrive://<tenant>/<path>"},
    ),
    "another tenant's folder": (
        "train.py",
        {"working_dir": "scaidrive://other/project"},
        {"working_dir": "is not in your tenant's folder"},
    ),
    "requirements that lead out": (
        "train.py",
        {"requirements": "/etc/passwd"},
        {"requirements": "'/etc/passwd' is not a plain path in the working directory"},
    ),
    "a flag that is none": (
        "train.py",
        {"requirements": "r.txt", "allow_source_builds": "yes"},
        {"allow_source_builds": "must be true or false"},
    ),
    "all of it at once": (
        "train.py",
        {"arguments": "'", "working_dir": "x", "allow_source_builds": "true"},
        {
            "arguments": "is never closed",
            "allow_source_builds": "set requirements",
            "working_dir": "form",
        },
    ),
}


@pytest.mark.parametrize("name", INVALID)
async def test_a_wrong_submission_names_the_field(tmp_path: Path, name: str) -> None:
    script, config, expected = INVALID[name]
    async with running(tmp_path) as (_, client):
        folder = project(client, **{"r.txt": ""})
        request = job(script, **{"working_dir": folder, **config})
        error = await refusal(client, "SubmitJob", request)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    told: dict[str, Any] = fields_of(error.trailing_metadata())
    framework = "training_config.framework"
    for field, text in expected.items():
        where = field if field == "custom_script_path" else f"config.{field}"
        assert text in told[f"{framework}.{where}"]
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("script", "config", "reason"),
    [
        ("train.py", {"working_dir": "scaidrive://local/nothing"}, "does not exist"),
        ("train.py", {"working_dir": "scaidrive://local/project/train.py"}, "not a directory"),
        ("other.py", {}, "other.py does not exist"),
        ("train.py", {"requirements": "r.txt"}, "r.txt does not exist"),
        ("lib", {}, "is not a file"),
    ],
)
async def test_what_is_not_there_is_refused(
    tmp_path: Path, script: str, config: dict[str, str], reason: str
) -> None:
    async with running(tmp_path) as (_, client):
        folder = project(client, **FILES)
        error = await refusal(client, "SubmitJob", job(script, **{"working_dir": folder, **config}))

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason in (error.details() or "")
