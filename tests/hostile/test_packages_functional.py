"""Packages whose build means harm, and packages where an ordinary user runs the coordinator."""

import asyncio

import pytest

from app.coordinator.isolation.levels import Level
from tests.coordinator.harness import Client, status_of
from tests.coordinator.projects import job, messages, submitted
from tests.coordinator.wheels import make_sdist, make_wheel
from tests.hostile.places import Place, machine_at, places
from tests.hostile.wellbeing import all_is_well

FOLDER = "scaidrive://mallory/project"
REQUIREMENTS = "--no-index\n--find-links ./packages\nextra\n"

#: Leaves a process behind, and what is no file in the environment, which the command of a process
#: above names.
PLANTS = """
if os.fork() == 0:
    os.setsid()
    import time
    if os.fork() == 0:
        # uv waits for whoever holds its pipes.
        os.closerange(0, 256)
        time.sleep(600)
    os._exit(0)
pid, root = os.getpid(), ""
while not root and pid > 1:
    words = open(f"/proc/{pid}/cmdline").read().split("\\0")
    if "--python" in words:
        root = os.path.dirname(os.path.dirname(words[words.index("--python") + 1]))
    pid = int(open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[1])
os.symlink("/etc/shadow", f"{root}/leads-out")
os.symlink("/", f"{root}/lib/root")
os.mkfifo(f"{root}/waits-for-ever")
for path in (f"{root}/../environment.json", f"{root}/../../evil"):
    try:
        open(path, "w").write("{}")
    except OSError:
        pass
return root
"""


async def outcome(client: Client, **config: str) -> tuple[str, list[str]]:
    """How a job of the folder ends, and what it says."""
    client.write("project/requirements.txt", REQUIREMENTS)
    client.write("project/train.py", "import extra; print('imported', extra.__file__)")
    request = job("train.py", working_dir=FOLDER, requirements="requirements.txt", **config)
    job_id = await submitted(client, request)
    said = await messages(client, job_id)
    return status_of(await client.end(job_id)), said


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(each, marks=() if str(each) == Level.NAMESPACES else pytest.mark.slow)
        for each in places()
        if not each.bundled
    ],
    ids=str,
)
def test_packages_are_installed_and_what_a_build_plants_is_refused(place: Place) -> None:
    async def run() -> None:
        async with machine.client() as client:
            packages = client.drive / client.tenant / "project/packages"
            make_wheel(packages, "extra")
            status, said = await outcome(client)
            assert status == "COMPLETED", said
            assert any(line.startswith("imported") for line in said)
            (packages / "extra-1.0-py3-none-any.whl").unlink()
            make_sdist(packages, "extra", PLANTS)
            status, said = await outcome(client, allow_source_builds="true")
            assert status == "FAILED", said
            assert any("'waits-for-ever' is neither a file nor a link" in line for line in said)
            left = sorted(each.name for each in (machine.path / "environments/entries").iterdir())
            # Where nothing is kept apart it may write beside its own.
            assert len(left) == (2 if place.level is Level.NONE else 1), left
        await all_is_well(machine)

    with machine_at(place) as machine:
        asyncio.run(run())
