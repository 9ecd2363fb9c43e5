"""Numbers, lines and names that a script writes: they end nothing, and all of them can be read."""

import pytest

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
    assert status_of(told.job) == "COMPLETED", told.job
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
