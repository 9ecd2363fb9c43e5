"""Every command of docs/training.md runs as it stands there, in its order, on one stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.local.example.models import PYTHON_VARIABLE
from tests.functional import stack as stacks
from tests.functional.stack import CLIENT, PROJECT, Stack

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Types of training, each with a command of its own.
_TYPES = {"CONTINUED_PRETRAIN", "FULL_FINETUNE", "SFT", "LORA", "QLORA", "DPO", "RLHF"}


def commands() -> list[str]:
    """The page's blocks of commands that submit a job."""
    page = (PROJECT / "docs/training.md").read_text()
    return [block for block in _BLOCK.findall(page) if "scaimind jobs submit" in block]


def test_each_type_has_a_command() -> None:
    found = {each for block in commands() for each in re.findall(r"--type ([A-Z_]+)", block)}
    assert found == _TYPES


@pytest.mark.slow
def test_every_command_of_the_page_runs(
    trainers_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The example's model takes a minute, and longer on a busy machine.
    monkeypatch.setattr(stacks, "PATIENCE", 900.0)
    here = tmp_path / "here"
    here.mkdir()
    with Stack(tmp_path / "var", **{PYTHON_VARIABLE: str(trainers_python)}) as stack:
        stack.await_line("Made a language model")

        def bash(script: str) -> str:
            done = subprocess.run(
                ("bash", "-euo", "pipefail", "-c", script),
                env={
                    "PATH": "/usr/bin:/bin",
                    "BASH_FUNC_scaimind%%": f'() {{ "{sys.executable}" -P -m scaimind "$@"; }}',
                    "PYTHONPATH": str(CLIENT),
                    "SCAIMIND_URL": stack.url,
                    "SCAIMIND_API_KEY": stack.key,
                },
                cwd=here,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return done.stdout

        job_id = ""
        for block in commands():
            job_id = bash(block.replace("<job_id>", job_id)).split()[0]
            bash(f"scaimind jobs wait {job_id} --timeout 30m")
            assert "The model is exported." in bash(f"scaimind jobs logs {job_id}")
