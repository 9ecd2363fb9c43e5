"""What the programs hold in memory and environment is closed to processes of their own user."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.functional.stack import Stack

#: Becomes a program that is not, as root is, free to look into any process: without
#: CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON. All other capabilities stay: a process
#: that has more of them than the one who looks is closed to it anyway.
_WITHOUT_PTRACE = (
    sys.executable,
    "-c",
    "import ctypes, os, sys\n"
    "for number in (19, 21, 38): ctypes.CDLL(None).prctl(24, number, 0, 0, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)
#: Opens a file and says how that went.
_LOOK = """
import sys
try:
    open(sys.argv[1], "rb").read(1)
except OSError as error:
    print(error.strerror)
else:
    print("read")
"""


@pytest.fixture(scope="module")
def plain_stack(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Stack]:
    """A stack as an ordinary user has it."""
    folder = tmp_path_factory.mktemp("undumpable") / "var"
    with Stack(folder, within=_WITHOUT_PTRACE, SCAIMIND_DATABASE_DSN=postgres_server) as running:
        yield running


def _look(pid: int, name: str) -> str:
    looked = subprocess.run(
        [*_WITHOUT_PTRACE, sys.executable, "-c", _LOOK, f"/proc/{pid}/{name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return looked.stdout.strip()


def _pid(stack: Stack, program: str) -> int:
    return stack.process.pid if program == "up" else stack.child(program).pid


@pytest.mark.parametrize("program", ["up", "issuer", "coordinator", "serve"])
@pytest.mark.parametrize("name", ["environ", "maps"])
def test_another_process_of_the_same_user_cannot_look_into(
    plain_stack: Stack, program: str, name: str
) -> None:
    assert _look(_pid(plain_stack, program), name) == "Permission denied"


def test_a_process_that_is_no_program_of_ours_can_be_looked_into() -> None:
    """So that the test above tells of us, not of the machine."""
    with subprocess.Popen(
        [*_WITHOUT_PTRACE, sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert _look(other.pid, "environ") == "read"
        other.communicate(b"\n")
