"""The README's tutorial, pasted into a shell as it stands."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.stack import CLIENT, PATIENCE, PROJECT, Stack, environ

TUTORIAL = (PROJECT / "README.md").read_text().partition("## Train something")[2]
TUTORIAL = TUTORIAL.partition("### Look around")[0]
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", TUTORIAL, re.M | re.S)


def block(holding: str) -> str:
    """The one block of the tutorial with this text in it."""
    (found,) = (each for each in BLOCKS if holding in each)
    return str(found)


def _heeding_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Shell:
    """A terminal in the project's folder, into which the tutorial's first lines were pasted."""

    def __init__(self, stack: Stack, venv: Path) -> None:
        self._started: list[subprocess.Popen[str]] = []
        (venv / "bin").mkdir(parents=True)
        command = venv / "bin/scaimind"
        # What scripts/run puts there.
        run = f"PYTHONPATH={shlex.quote(str(CLIENT))} exec {shlex.quote(sys.executable)}"
        command.write_text(f'#!/bin/sh\n{run} -P -m scaimind "$@"\n')
        command.chmod(0o755)
        self._environ = environ(
            stack.data_dir, XDG_CONFIG_HOME=str(stack.config_home), SCAIMIND_VENV=str(venv)
        )

    def start(self, script: str) -> "subprocess.Popen[str]":
        """Run lines in a terminal of their own, whose Ctrl-C is a signal to all in it."""
        first = block("PATH=").splitlines()[0]
        started = subprocess.Popen(
            ("bash", "-euo", "pipefail", "-c", f"{first}\n{script}"),
            cwd=PROJECT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # As a terminal has it: who runs the tests in the background ignores Ctrl-C.
            preexec_fn=_heeding_ctrl_c,
        )
        self._started.append(started)
        return started

    def close(self) -> None:
        """End what still runs."""
        for each in self._started:
            with each:
                if each.poll() is None:
                    os.killpg(each.pid, signal.SIGKILL)

    def paste(self, script: str, *, status: int = 0) -> str:
        """Run lines, and return what they print."""
        process = self.start(script)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, (output, errors)
        return output


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Iterator[Shell]:
    terminal = Shell(stack, tmp_path / "venv")
    yield terminal
    terminal.close()


def test_the_tutorial_works_as_it_stands(shell: Shell, stack: Stack) -> None:
    assert "train.py" in shell.paste("scaimind ls")
    shell.paste(block('--name "first steps"'))
    following = shell.start(block("logs -f -"))
    watching = shell.start(block("jobs watch").splitlines()[0])
    assert following.stdout is not None
    assert watching.stdout is not None
    assert "TRAINING" in next(line for line in watching.stdout if "TRAINING" in line)
    os.killpg(watching.pid, signal.SIGINT)
    seen = next(line for line in following.stdout if line.startswith("Step "))
    assert "of 6000" in seen

    lists = shell.paste(block("scaimind queue"))
    assert "first steps" in lists
    assert "ONLINE" in lists
    steered = shell.paste(block("--wait"))
    assert "PAUSED" in steered
    assert any(line.startswith("Going on from step-") for line in following.stdout)
    assert "loss" in shell.paste(block("--plot").splitlines()[1])

    shell.paste(block("second steps").splitlines()[1])
    with following.stdout, watching.stdout:
        _, errors = following.communicate(timeout=PATIENCE)
        assert (following.returncode, errors) == (3, "")
        watching.communicate(timeout=PATIENCE)
        assert watching.returncode == 130
    shell.paste("scaimind jobs pause -", status=6)


def test_the_result_is_what_the_readme_says(shell: Shell) -> None:
    # The tutorial's job in a hurry, as it says itself.
    hurry = block('--name "first steps"').replace("--hp steps_per_second=20", "")
    shell.paste(hurry.replace("steps=6000", "steps=1500"))
    result = shell.paste(block("--timeout"))
    assert "COMPLETED" in result
    assert "model.npz" in result
    assert '"validation_loss"' in result
    again = shell.paste(block("second steps") + "scaimind jobs wait - || exit $?", status=3)
    assert "second steps" in again
