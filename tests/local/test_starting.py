"""Steps of a start that are programs of their own."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.local.data_dir import CannotStart, DataDir
from app.local.starting import run_step


async def told_by(data_dir: DataDir, name: str, *arguments: str, **variables: str) -> list[str]:
    """The lines that a step prints."""
    lines: list[str] = []
    with data_dir.children_lock() as lock:
        await run_step(
            name,
            str(data_dir.root),
            *arguments,
            environ={**_environ(), **variables},
            log=data_dir.logs / "step.log",
            tell=lines.append,
            holding=lock.descriptor,
        )
    return lines


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    made = DataDir(tmp_path / "var")
    made.prepare()
    return made


async def test_what_a_person_can_mend_is_the_error_of_the_start(data_dir: DataDir) -> None:
    nowhere = f"postgresql://nobody@/nothing?host={data_dir.root}"
    with pytest.raises(CannotStart, match=r"^The database is not usable: No such file"):
        await told_by(data_dir, "bootstrap", SCAIMIND_DATABASE_DSN=nowhere)
    with pytest.raises(CannotStart, match=r"^SCAIMIND_DATABASE_DSN: not set"):
        await told_by(data_dir, "bootstrap")


async def test_a_step_that_breaks_names_its_log(data_dir: DataDir) -> None:
    with pytest.raises(CannotStart, match=rf"KeyError: 'another' \(log: {data_dir.logs}"):
        await told_by(data_dir, "another")
    assert "Traceback" in (data_dir.logs / "step.log").read_text()


async def test_a_step_that_was_killed_names_the_signal(data_dir: DataDir) -> None:
    (data_dir.root / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), 9)")
    with pytest.raises(CannotStart, match=r"was ended by signal 9 \(Killed\)") as caught:
        await told_by(data_dir, "bootstrap", PYTHONPATH=str(data_dir.root))
    assert "the log is empty" not in str(caught.value)
    assert str(data_dir.logs) in str(caught.value)


async def test_lines_of_a_step_are_told(data_dir: DataDir) -> None:
    """A file in place of the folder of profiles: the step says so, and the stack starts."""
    data_dir.api_key.write_text("sgk_1")
    (data_dir.root / "file").touch()
    client = str(Path(__file__).parents[2] / "clients/python")
    (line,) = await told_by(
        data_dir,
        "profile",
        "http://127.0.0.1:1",
        XDG_CONFIG_HOME=str(data_dir.root / "file"),
        PYTHONPATH=client,
    )
    assert line.startswith("The command scaimind has no profile of this stack: ")


def _environ() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SCAIMIND_")}
