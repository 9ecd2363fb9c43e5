"""Numbers, lines and names that a script writes: they end nothing, and all of them can be read."""

import grpc.aio
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    ListCheckpointsRequest,
    ListJobsRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest
from tests.coordinator.harness import status_of
from tests.hostile.machine import Machine
from tests.hostile.wellbeing import Answers, all_is_well

#: Behind this, `M`, `C` and `O` are the metrics file and the directories of checkpoints and output.
BEGIN = """
import os, sys
M, C, O = (
    os.environ["SCAIMIND_" + name] for name in ("METRICS_FILE", "CHECKPOINT_DIR", "OUTPUT_DIR")
)
def report(*lines):
    with open(M, "ab") as file:
        file.write(b"\\n".join(lines) + b"\\n")
"""


async def outcome(machine: Machine, script: str) -> Answers:
    """What is told of a job that runs this script, once it has succeeded."""
    async with machine.client() as client:
        job_id = await client.submit(BEGIN + script)
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED", told.job.error_message
    return told


def said(told: Answers, text: str) -> int:
    """How many lines of the log have `text`."""
    return len([message for message in told.messages if text in message])


@pytest.mark.parametrize("total", ["NaN", "Infinity", "1e30", "-1e19", "9223372036854775807"])
async def test_a_total_that_is_none_does_not_cost_the_loss(machine: Machine, total: str) -> None:
    told = await outcome(
        machine,
        f"""
report(*[b'{{"step": 2, "loss": 0.5, "total_steps": {total}}}'] * 3)
""",
    )
    progress = told.job.progress
    assert (progress.step, progress.total_steps, progress.loss) == (2, 0, 0.5)
    assert said(told, "'total_steps' is not a finite number") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("b'{\"step\": ' + b'1' * 401 + b'}'", "its 'step' is not a finite number"),
        ("b'{\"step\": ' + b'1' * 5000 + b'}'", "its 'step' is not a finite number"),
        ("b'{\"step\": 1, \"x\": ' + b'[' * 2000 + b']' * 2000 + b'}'", "nested more than"),
        ("b'[' * 1_000_000", "it is not JSON"),
        ("b'x' * (300 << 20)", "it has more than"),
        ("b'\\xff\\x00'", "it is not JSON"),
    ],
)
async def test_a_line_that_is_no_snapshot_is_said_once(
    machine: Machine, line: str, reason: str
) -> None:
    told = await outcome(machine, f'\nreport(*[{line}] * 2, b\'{{"step": 7, "loss": 0.5}}\')\n')
    assert told.job.progress.step == 7
    assert said(told, reason) == 1
    async with machine.client() as client:
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=told.job.job_id))
    assert metrics.points[-1].loss == 0.5


async def test_a_killed_runner_leaves_a_line_of_300_mebibytes(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit(
            BEGIN
            + """
import signal
report(b'{"step": 1}', b'x' * (300 << 20), b'{"step": 2, "total_steps": NaN}')
os.kill(os.getppid(), signal.SIGKILL)
"""
        )
    (told,) = await all_is_well(machine, job_id)
    assert told.job.progress.step == 2


@pytest.mark.parametrize("depth", [254, 255, 1023, 5000])
async def test_a_structured_line_that_is_nested_deep(machine: Machine, depth: int) -> None:
    told = await outcome(
        machine,
        f"""
print('{{"level": "error", "message": "deep", "x": ' + '[' * {depth} + ']' * {depth} + '}}')
print('{{"level": "error", "message": "behind it", "rank": 18446744073709551616}}')
""",
    )
    assert said(told, "deep") == 1
    assert said(told, "behind it") == 1


NAMES = {
    "a number of 20 digits": ("b'ckpt-20261126154000123456'", 1),
    "no UTF-8": ("b'step-\\xff1'", 0),
    "a line break": ("b'step\\n1'", 0),
    "255 bytes": ("b's' * 255", 1),
    "2^63": ("b'step-9223372036854775808'", 1),
    "digits of another script": ("'step-\\u0661'.encode()", 1),
}


@pytest.mark.parametrize("name", NAMES)
async def test_a_checkpoint_of_any_name(machine: Machine, name: str) -> None:
    expression, count = NAMES[name]
    told = await outcome(
        machine,
        f"""
os.mkdir(os.fsencode(C) + b"/" + {expression})
os.mkdir(C + "/step-7")
""",
    )
    ids = [checkpoint.checkpoint_id for checkpoint in told.job.checkpoints]
    assert len(ids) == count + 1
    assert "step-7" in ids
    assert all(each.isprintable() for each in ids)
    assert told.job.checkpoint_count == len(ids)
    assert said(told, "are left out, such as") == 1 - count


async def test_a_checkpoint_that_is_1500_deep(machine: Machine) -> None:
    told = await outcome(
        machine,
        """
os.chdir(C)
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
""",
    )
    (checkpoint,) = told.job.checkpoints
    assert (checkpoint.checkpoint_id, checkpoint.size_bytes) == ("d", 0)


@pytest.mark.slow
async def test_jobs_with_20000_checkpoints_each_are_told_in_pages(machine: Machine) -> None:
    script = """
for at in range(20_000):
    os.mkdir(f"{C}/step-{at}")
"""
    async with machine.client() as client:
        jobs = [await client.submit(BEGIN + script) for _ in range(3)]
    every = await all_is_well(machine, *jobs)
    told = every[0]
    assert told.job.checkpoint_count == 20_000
    assert len(told.job.checkpoints) == 100
    found: list[str] = []
    token = ""
    async with machine.client() as client:
        listed = await client.call("ListJobs", ListJobsRequest(page_size=100))
        counts = {job.job_id: job.checkpoint_count for job in listed.jobs}
        assert {counts[each.job.job_id] for each in every} == {20_000}
        assert max(len(job.checkpoints) for job in listed.jobs) == 100
        while True:
            page = await client.call(
                "ListCheckpoints",
                ListCheckpointsRequest(job_id=told.job.job_id, page_size=100, page_token=token),
            )
            found += [checkpoint.checkpoint_id for checkpoint in page.checkpoints]
            if not (token := page.next_page_token):
                break
        assert len(set(found)) == len(found) == page.total_count == 20_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(
                "ListCheckpoints",
                ListCheckpointsRequest(job_id=told.job.job_id, page_token="x" * 100),
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


RESUMES = """
import os, signal, sys, time
C, start = os.environ["SCAIMIND_CHECKPOINT_DIR"], os.environ["SCAIMIND_RESUME_FROM"]
print("from", os.path.basename(start), flush=True)
def write(name):
    os.mkdir(f"{C}/{name}.tmp")
    os.rename(f"{C}/{name}.tmp", f"{C}/{name}")
    print("wrote", name, flush=True)
def leave(*_):
    write(f"step-{step}")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
"""


async def test_a_job_goes_on_from_what_it_wrote_last_not_from_the_highest_step(
    machine: Machine,
) -> None:
    script = (
        RESUMES
        + """
step = {"": 200, "step-200": 150, "step-150": 0}[os.path.basename(start)]
if not step:
    sys.exit(0)
print("ready for", step, flush=True)
time.sleep(600)
"""
    )
    async with machine.client() as client:
        job_id = await client.submit(script)
        for written in ("step-200", "step-150"):
            # Its handler of SIGTERM is there.
            await client.until_line(job_id, f"ready for {written.removeprefix('step-')}")
            await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
            job = await client.until_status(job_id, "PAUSED")
            assert job.checkpoints[-1].checkpoint_id == written
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
            await client.until_line(job_id, f"from {written}")
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED"
