"""Packages of jobs: installed in isolation, from an index or a folder of wheels, and shared."""

import asyncio
import json
import random
import signal
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, SubmitJobRequest
from tests.coordinator.harness import (
    Client,
    client_of,
    coordinator_process,
    running,
    status_of,
)
from tests.coordinator.projects import failed, job, messages, submitted
from tests.coordinator.test_all_problems_functional import refusal
from tests.coordinator.wheels import make_sdist, make_wheel, serving

FOLDER = "scaidrive://local/project"

USES = """
    import os, subprocess, sys
    import click, extra
    print("extra", extra.VERSION, extra.__file__)
    print("click", click.__file__)
    print("script", subprocess.run(["extra-cli"], capture_output=True, text=True).stdout.strip())
    print("child", subprocess.run(
        [sys.executable, "-c", "import extra; print(extra.VERSION)"],
        capture_output=True, text=True,
    ).stdout.strip())
    try:
        open(os.path.join(os.path.dirname(extra.__file__), "evil.py"), "w")
    except OSError as error:
        print("not written", type(error).__name__)
"""
CLI = {"extra.py": "VERSION = '1.0'\ndef main(): print('from a script')\n"}


def project(client: Client, requirements: str, script: str = "import extra", **files: str) -> None:
    for name, text in {"train.py": script, "requirements.txt": requirements, **files}.items():
        client.write(f"project/{name}", text)


def with_packages(**config: str) -> SubmitJobRequest:
    return job("train.py", working_dir=FOLDER, requirements="requirements.txt", **config)


async def run(client: Client, **config: str) -> tuple[str, list[str]]:
    """The status that a job ends with, and what it said."""
    job_id = await submitted(client, with_packages(**config))
    said = await messages(client, job_id)
    return status_of(await client.end(job_id)), said


def entries(path: Path) -> list[Path]:
    return sorted((path / "environments/entries").iterdir())


@pytest.mark.parametrize(
    "level",
    [
        *("namespaces", "user"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("landlock", "none")),
    ],
)
async def test_packages_are_installed_beside_those_of_the_base(tmp_path: Path, level: str) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(
        wheels, "extra", files=CLI, requires=["click>=1"], scripts={"extra-cli": "extra:main"}
    )
    # A newer one of what the base has: it is a constraint, and is not installed again.
    make_wheel(wheels, "click", "999.0")
    data = tmp_path / "data"
    async with running(data, isolation=level, packages_wheels=wheels) as (_, client):
        project(client, "extra\nclick\n", USES)
        status, said = await run(client)
        again, said_again = await run(client)

    assert status == again == "COMPLETED", said
    (entry,) = entries(data)
    packages = next((entry / "env").glob("lib/python3*/site-packages"))
    assert f"extra 1.0 {packages}/extra.py" in said
    assert "script from a script" in said
    assert "child 1.0" in said
    (base,) = [line.split()[1] for line in said if line.startswith("click ")]
    assert not base.startswith(str(data))
    # Below the level `user` it is this very user's, and root writes anywhere.
    if level != "none":
        assert any(line.startswith("not written") for line in said)
    assert any(line.strip() == "+ extra==1.0" for line in said)
    assert not any("click" in line for line in said if line.strip().startswith("+"))
    assert [each.name for each in packages.glob("*.dist-info")] == ["extra-1.0.dist-info"]
    assert (packages / "__pycache__").is_dir()
    # No file is the cache's as well.
    assert {each.lstat().st_nlink for each in packages.rglob("*.py")} == {1}
    # Made once: the second job uses it.
    assert "The packages of 'requirements.txt' are there already." in said_again
    assert not list((entry / "jobs").iterdir())


async def test_a_private_wheel_comes_in_the_folder(tmp_path: Path) -> None:
    make_wheel(tmp_path / "own", "extra")
    (tmp_path / "none").mkdir()
    async with running(tmp_path / "data", packages_wheels=tmp_path / "none") as (_, client):
        project(client, "-r more/base.txt\n", "import extra; print(extra.VERSION)")
        client.write("project/more/base.txt", "--find-links ../wheels\nextra==1.0\n")
        wheels = client.drive / "local/project/wheels"
        (tmp_path / "own").rename(wheels)
        status, said = await run(client)
        assert (status, "1.0" in said) == ("COMPLETED", True), said
        # The wheel is a part of what the environment was made of.
        make_wheel(wheels, "extra", files={"extra.py": "VERSION = 'another'\n"})
        status, said = await run(client)

    assert (status, "another" in said) == ("COMPLETED", True), said
    assert len(entries(tmp_path / "data")) == 2


async def test_what_contradicts_the_base_fails_with_the_resolvers_words(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra", requires=["click>=999"])
    async with running(tmp_path / "data", packages_wheels=tmp_path / "wheels") as (_, client):
        project(client, "extra\n")
        reason = await failed(client, with_packages())
        assert not entries(tmp_path / "data")

    assert "The packages of 'requirements.txt' could not be installed: uv exited with" in reason
    assert "No solution found" in reason
    assert "click>=999" in reason


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        ("-e .\n", "Name the folder without -e"),
        ("-r ../../secrets.txt\n", "leads out of the working directory"),
        ("-r missing.txt\n", "'missing.txt' is not a file in the working directory"),
        ("nothing-of-this-name\n", "nothing-of-this-name"),
        ("not a requirement at all\n", "uv exited with status 2: error:"),
    ],
)
async def test_requirements_that_cannot_be_met_fail_the_job(
    tmp_path: Path, requirements: str, reason: str
) -> None:
    (tmp_path / "wheels").mkdir()
    async with running(tmp_path / "data", packages_wheels=tmp_path / "wheels") as (_, client):
        project(client, requirements)
        assert reason in await failed(client, with_packages())


async def test_two_jobs_that_ask_at_once_have_it_made_once(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    async with serving(tmp_path / "wheels") as index:
        index.gate.clear()
        data = tmp_path / "data"
        async with running(data, packages_index=index.url) as (_, client):
            project(client, "extra==1.0\n")
            first = await submitted(client, with_packages())
            await index.reached.wait()
            second = await submitted(client, with_packages())
            await client.until_line(second, "Waiting for another job")
            index.gate.set()
            ends = [status_of(await client.end(each)) for each in (first, second)]
            said = [await messages(client, each) for each in (first, second)]

    assert ends == ["COMPLETED", "COMPLETED"]
    assert "Installing the packages of 'requirements.txt'." in said[0]
    assert "Installing the packages of 'requirements.txt'." not in said[1]
    assert "The packages of 'requirements.txt' are there already." in said[1]
    (entry,) = entries(data)
    assert json.loads((entry / "environment.json").read_text())["pinned"] is True


async def test_cancelling_ends_an_installation(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    async with serving(tmp_path / "wheels") as index:
        index.gate.clear()
        async with running(tmp_path / "data", packages_index=index.url) as (_, client):
            project(client, "extra\n")
            job_id = await submitted(client, with_packages())
            await index.reached.wait()
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.until_status(job_id, "CANCELLED")
            index.gate.set()
            # The next one begins anew, behind it.
            status, said = await run(client)

    assert status == "COMPLETED", said
    assert len(entries(tmp_path / "data")) == 1


async def test_a_coordinator_that_is_killed_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    data = tmp_path / "data"
    async with serving(tmp_path / "wheels") as index:
        monkeypatch.setenv("SCAIMIND_COORDINATOR_PACKAGES_INDEX", index.url)
        index.gate.clear()
        async with (
            coordinator_process(data) as process,
            client_of(process.port, data / "drive") as client,
        ):
            project(client, "extra\n")
            job_id = await submitted(client, with_packages())
            await index.reached.wait()
            await process.stop(signal.SIGKILL)
        (left,) = entries(data)
        assert not (left / "environment.json").exists()
        index.gate.set()
        async with (
            coordinator_process(data) as process,
            client_of(process.port, data / "drive") as client,
        ):
            assert status_of(await client.end(job_id)) == "COMPLETED"
            status, said = await run(client)

    assert status == "COMPLETED"
    assert "The packages of 'requirements.txt' are there already." in said
    (entry,) = entries(data)
    assert entry != left


SEES = """
found = {"secrets": sorted(name for name in os.environ if "TOKEN" in name or "SCAIMIND" in name)}
for path in PATHS:
    try:
        found[path] = sorted(os.listdir(path))[:3]
    except OSError as error:
        found[path] = type(error).__name__
import socket
found["network"] = socket.create_connection(("127.0.0.1", PORT), 5).fileno() > 0
return found
"""


async def test_only_wheels_are_installed_unless_the_submission_allows_more(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with serving(tmp_path / "packages") as index:
        port = index.url.split(":")[2].split("/")[0]
        private = [str(data / "secrets"), str(data / "jobs"), str(data / "drive")]
        see = SEES.replace("PATHS", repr(private)).replace("PORT", port)
        make_sdist(tmp_path / "packages", "built", see)
        async with running(data, packages_index=index.url) as (_, client):
            project(client, "built\n", "import built, json; print(json.dumps(built.SEEN))")
            refused = await failed(client, with_packages())
            request = with_packages(allow_source_builds="true")
            request.training_config.environment["HF_TOKEN"] = "hf_" + "x" * 30
            job_id = await submitted(client, request)
            said = await messages(client, job_id)

    assert "allow_source_builds" in refused
    (seen,) = [json.loads(line) for line in said if line.startswith("{")] or [said]
    assert seen["secrets"] == []
    assert seen["network"] is True
    # Of the coordinator's directories nothing is there but the way to the job's own.
    assert {seen[path] if isinstance(seen[path], str) else "listed" for path in private} <= {
        "FileNotFoundError",
        "PermissionError",
    }, seen


async def test_what_takes_too_long_or_too_much_is_ended(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    make_wheel(tmp_path / "wheels", "large", files={"large.py": f"TEXT = '{'x' * 6_000_000}'"})
    async with serving(tmp_path / "wheels") as index:
        data = tmp_path / "data"
        index.gate.clear()
        async with running(data, packages_index=index.url, packages_timeout=2.0) as (_, client):
            project(client, "extra\n")
            reason = await failed(client, with_packages())
            assert "uv had not finished after 2 s (settings packages_timeout" in reason
        index.gate.set()
        async with running(data, packages_index=index.url, environment_bytes=2**22) as (_, client):
            project(client, "large\n")
            reason = await failed(client, with_packages())
            assert "could not be installed" in reason
        assert not entries(data)


@pytest.mark.slow
async def test_what_nobody_uses_goes_for_new_ones_and_what_a_job_uses_stays(
    tmp_path: Path,
) -> None:
    wheels = tmp_path / "wheels"
    for name in ("one", "two"):
        make_wheel(wheels, name, files={f"{name}.py": f"TEXT = '{'x' * 1_000_000}'"})
    waits = "import one, time; print('ready', flush=True); time.sleep(600)"
    data = tmp_path / "data"
    async with running(data, packages_wheels=wheels, packages_bytes=8 * 2**20) as (_, client):
        project(client, "one\n", waits)
        job_id = await submitted(client, with_packages())
        await client.until_line(job_id, "ready")
        (used,) = entries(data)
        # Each is as good as another one; all of them are more than the limit.
        for more in range(3):
            project(client, f"two\n# {more}\n", "import two")
            status, said = await run(client)
            assert status == "COMPLETED", said
        kept = entries(data)
        assert used in kept
        assert 1 < len(kept) < 4
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)


async def test_tenants_share_no_environment_and_see_none_of_others(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    data = tmp_path / "data"
    looks = """
        import os, sys
        import extra
        print("own", sys.prefix)
        for path in open("others.txt").read().split():
            try:
                print("seen", os.listdir(path))
            except OSError as error:
                print("refused", type(error).__name__)
    """
    async with running(data, packages_wheels=tmp_path / "wheels") as (coordinator, client):
        project(client, "extra==1.0\n", looks, **{"others.txt": ""})
        status, said = await run(client)
        assert status == "COMPLETED", said
        (first,) = entries(data)
        (cache,) = (data / "environments/caches").iterdir()
        async with client_of(coordinator.port, client.drive, "other") as other:
            others = f"{first}/env {first.parent} {cache}/uv {cache.parent}"
            project(other, "extra==1.0\n", looks, **{"others.txt": others})
            request = with_packages()
            folder = request.training_config.framework.config["working_dir"]
            request.training_config.framework.config["working_dir"] = folder.replace(
                "local", "other"
            )
            job_id = await submitted(other, request)
            said = await messages(other, job_id)
            assert status_of(await other.end(job_id)) == "COMPLETED", said

    assert len(entries(data)) == 2
    assert len(list((data / "environments/caches").iterdir())) == 2
    assert f"own {first}/env" not in said
    # What leads to its own is there, and cannot be listed.
    assert [line.split()[0] for line in said if line.startswith(("seen", "refused"))] == [
        "refused"
    ] * 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_an_installation_is_whole_whenever_the_coordinator_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for number in range(3):
        files = {f"extra{number}/m{each}.py": f"N = {each}\n" for each in range(200)}
        make_wheel(tmp_path / "wheels", f"extra{number}", files=files)
    data = tmp_path / "data"
    monkeypatch.setenv("SCAIMIND_COORDINATOR_PACKAGES_WHEELS", str(tmp_path / "wheels"))
    chance = random.Random(seed)
    job_id = ""
    ended = False
    for _ in range(6):
        async with (
            coordinator_process(data) as process,
            client_of(process.port, data / "drive") as client,
        ):
            if not job_id:
                script = "import extra0.m1, extra1.m2, extra2.m199"
                project(client, "extra0\nextra1\nextra2\n", script)
                job_id = await submitted(client, with_packages())
            # A moment between the first step and the run.
            await asyncio.sleep(chance.uniform(0, 1.2))
            await process.stop(signal.SIGKILL)
        for entry in entries(data):
            if (entry / "environment.json").exists():
                modules = list((entry / "env").glob("lib/python3*/site-packages/extra*/m*.py"))
                assert len(modules) == 600
                assert not list((entry / "env").glob("lib/python3*/site-packages/grpcio*"))
    async with (
        coordinator_process(data) as process,
        client_of(process.port, data / "drive") as client,
    ):
        said = await messages(client, job_id)
        ended = status_of(await client.end(job_id)) == "COMPLETED"
        status, said_again = await run(client)
    assert ended, said
    assert status == "COMPLETED", said_again
    assert all((entry / "environment.json").exists() for entry in entries(data))


async def test_where_jobs_have_no_network_nothing_is_built_with_it(tmp_path: Path) -> None:
    async with running(tmp_path, job_network="none") as (_, client):
        project(client, "extra\n")
        error = await refusal(client, "SubmitJob", with_packages(allow_source_builds="true"))

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "allow_source_builds: a package that is built runs its own code" in (
        error.details() or ""
    )


async def test_a_coordinator_that_stops_takes_the_installation_up_again(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "extra")
    data = tmp_path / "data"
    async with serving(tmp_path / "wheels") as index:
        index.gate.clear()
        async with running(data, packages_index=index.url) as (coordinator, client):
            project(client, "extra\n")
            job_id = await submitted(client, with_packages())
            await index.reached.wait()
            async with asyncio.timeout(60):
                await coordinator.close()
        index.gate.set()
        async with running(data, packages_index=index.url) as (_, client):
            assert status_of(await client.end(job_id)) == "COMPLETED"
