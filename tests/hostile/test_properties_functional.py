"""Whatever a job writes, of all kinds at once: its machine is as well as before."""

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.coordinator.harness import status_of
from tests.hostile.cases import script
from tests.hostile.machine import Machine
from tests.hostile.strategies import PLANT, metrics_lines, names, outputs, trees
from tests.hostile.wellbeing import all_is_well

#: Writes everything that it is given, and goes the way that it is told.
_WRITES = """
with open(M, "ab") as file:
    for line in LINES:
        file.write(line + b"\\n")
for name in NAMES:
    try:
        os.mkdir(os.fsencode(C) + b"/" + name)
    except OSError:
        pass
for folder in (O, C, T, os.getcwd()):
    plant(TREE, folder)
for piece in OUTPUT:
    os.write(1, piece)
print("\\nwritten", flush=True)
if END < 0:
    os.kill(os.getpid(), -END)
os._exit(END)
"""


@settings(
    settings.get_profile("whole jobs"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    lines=st.lists(metrics_lines, max_size=8),
    taken=st.lists(names, max_size=8),
    tree=trees,
    output=st.lists(outputs, max_size=6),
    end=st.sampled_from([0, 0, 0, 1, 137, -9, -11]),
    register=st.booleans(),
)
@example(
    lines=[b'{"step": 1, "total_steps": NaN}'],
    taken=[b"ckpt-20261126154000123456", b"step-\xff1"],
    tree={b"deep": 1500, b"m\xff.bin": b"model"},
    output=[b'{"level": "info", "message": "", "f": ' + b"[" * 255 + b"]" * 255 + b"}\n"],
    end=0,
    register=True,
)
async def test_any_job(
    shared: Machine,
    lines: list[bytes],
    taken: list[bytes],
    tree: dict[bytes, Any],
    output: list[bytes],
    end: int,
    register: bool,
) -> None:
    given_to_it = f"LINES, NAMES, TREE, OUTPUT, END = {(lines, taken, tree, output, end)!r}\n"
    asked: dict[str, Any] = {"register_model": register, "model_name": "any" if register else ""}
    async with shared.client() as client:
        job_id = await client.submit(script(PLANT + given_to_it + _WRITES), output_config=asked)
    (told,) = await all_is_well(shared, job_id)
    assert "written" in told.messages
    if end:
        assert status_of(told.job) == "FAILED"
    else:
        assert status_of(told.job) == "COMPLETED" or told.job.error_message
