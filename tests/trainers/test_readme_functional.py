"""The README's first job, on a stack that has the environment to train in."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.local.example.models import PYTHON_VARIABLE
from tests.functional import stack as stacks
from tests.functional.stack import CLIENT, PROJECT, Stack
from tests.functional.test_readme import block


@pytest.mark.slow
def test_the_first_job_fine_tunes_the_examples_model(
    trainers_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The example's model takes a minute, and longer on a busy machine.
    monkeypatch.setattr(stacks, "PATIENCE", 400.0)
    with Stack(tmp_path / "var", **{PYTHON_VARIABLE: str(trainers_python)}) as stack:
        stack.await_line("Made a language model")

        def scaimind(script: str) -> str:
            done = subprocess.run(
                ("bash", "-euo", "pipefail", "-c", script),
                env={
                    "PATH": "/usr/bin:/bin",
                    "BASH_FUNC_scaimind%%": f'() {{ "{sys.executable}" -P -m scaimind "$@"; }}',
                    "PYTHONPATH": str(CLIENT),
                    "SCAIMIND_URL": stack.url,
                    "SCAIMIND_API_KEY": stack.key,
                },
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout

        scaimind(block('--name "first sums"').replace("max_steps=1500", "max_steps=60"))
        assert "COMPLETED" in scaimind("scaimind jobs wait - --timeout 5m")
        assert "First example" in scaimind("scaimind jobs logs -")
        assert "model.safetensors" in scaimind("scaimind ls models/sums")
