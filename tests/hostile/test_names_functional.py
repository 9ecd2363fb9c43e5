"""Names that are odd: said at the submission or no hindrance, never found out after hours."""

from typing import Any

import grpc
import pytest

from tests.coordinator.harness import Client, status_of, submission
from tests.hostile.machine import HOSTILE, Machine
from tests.hostile.wellbeing import all_is_well

#: As many bytes as a name may have.
LONGEST = 255


async def _refused(client: Client, **changes: Any) -> tuple[grpc.StatusCode, str]:
    client.write("train.py", "")
    request = submission(**changes)
    if not changes.get("training_config"):
        request.training_config.framework.custom_script_path = f"scaidrive://{HOSTILE}/train.py"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("SubmitJob", request)
    return caught.value.code(), str(caught.value.details())


@pytest.mark.parametrize(
    "name",
    [
        *("-c.py", "-m", "--help", "-", "-c", "a b.py", "a\nb.py", "a'\"$(x)`.py", "é\u202e.py"),
        *(".py", "...", "..py", "%s.py", "train.py.partial", "train", "x.json", "json.py"),
        *(
            "a" * (247 - 3) + ".py",
            "b" * (LONGEST - 3) + ".py",
            "é" * 127 + "x",
            "sitecustomize.py",
        ),
    ],
)
async def test_a_script_may_have_any_name(machine: Machine, name: str) -> None:
    async with machine.client() as client:
        client.write(f"scripts/{name}", "print('it ran')\n")
        request = submission()
        framework = request.training_config.framework
        framework.custom_script_path = f"scaidrive://{HOSTILE}/scripts/{name}"
        job_id = (await client.call("SubmitJob", request)).job_id
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert "it ran" in [entry.message for entry in await client.log(job_id)]


async def test_a_directory_is_no_script(machine: Machine) -> None:
    async with machine.client() as client:
        client.write("package/__main__.py", "")
        code, text = await _refused(
            client,
            training_config={
                "framework": {"custom_script_path": f"scaidrive://{HOSTILE}/package"},
            },
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "is not a file" in text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("a-file", "is not a directory and cannot become one"),
        ("a-file/below", "is not a directory and cannot become one"),
        ("a-file/far/below", "is not a directory and cannot become one"),
        ("leads-out", "leads outside your tenant's folder"),
        ("leads-out/below", "leads outside your tenant's folder"),
        ("leads-round", "cannot be reached"),
        ("x" * (LONGEST + 1), "File name too long"),
        ("new/" + "x" * (LONGEST + 1) + "/deep", "File name too long"),
        ("../elsewhere", "is not a plain path"),
        ("a//b", "is not a plain path"),
        ("", "is not a plain path"),
        ("a\0b", "is not a plain path"),
    ],
)
async def test_an_output_that_cannot_be_written_is_refused_at_the_submission(
    machine: Machine, path: str, says: str
) -> None:
    async with machine.client() as client:
        client.write("a-file", "")
        root = machine.drive / HOSTILE
        for name, target in (("leads-out", "/tmp"), ("leads-round", "leads-round")):
            (root / name).unlink(missing_ok=True)
            (root / name).symlink_to(target)
        code, text = await _refused(client, output_config={"path": f"scaidrive://{HOSTILE}/{path}"})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith("output_config.path: ")
        assert says in text


@pytest.mark.parametrize(
    "path",
    [
        "o" * 247,
        "p" * LONGEST,
        f"new/{'q' * LONGEST}/r",
        "outputs/-rf",
        "outputs/a\nb",
        "package",
    ],
)
async def test_an_output_may_have_any_name_that_a_file_may_have(
    machine: Machine, path: str
) -> None:
    async with machine.client() as client:
        client.write("package/__main__.py", "")
        job_id = await client.submit(
            "import os; open(os.environ['SCAIMIND_OUTPUT_DIR'] + '/' + 'm' * 255, 'w').write('x')",
            output_config={"path": f"scaidrive://{HOSTILE}/{path}"},
        )
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert (machine.drive / HOSTILE / path / ("m" * 255)).read_text() == "x"


async def test_all_is_well_after_a_script_that_names_everything_oddly(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit(
            """
            import os
            for folder in ("SCAIMIND_OUTPUT_DIR", "TMPDIR", "HOME"):
                for name in (b"-rf", b"a\\nb", b"\\xff\\xfe", b"x" * 255, b"\\xe2\\x80\\xae", b" "):
                    os.mkdir(os.fsencode(os.environ[folder]) + b"/" + name)
            """
        )
    (answers,) = await all_is_well(machine, job_id)
    assert status_of(answers.job) == "COMPLETED", answers.job
