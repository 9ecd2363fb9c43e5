"""torch of the coordinator's Python, as jobs with packages of their own find it."""

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Awaitable, Callable
from importlib.metadata import distributions
from pathlib import Path

import pytest

from app.coordinator.packages.uv import find_uv
from tests.coordinator import harness
from tests.coordinator.harness import Client, client_of, coordinator_process, status_of
from tests.coordinator.projects import failed, messages, submitted
from tests.coordinator.test_packages_functional import entries, project, with_packages
from tests.coordinator.wheels import make_wheel
from tests.trainers.environment import COMMAND, find_python

pytestmark = pytest.mark.slow


def linked(source: str, target: str) -> None:
    """A second name, since torch is large; a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a coordinator's environment into which an operator has installed torch."""
    if (python := find_python()) is None:
        pytest.skip(f"there is no environment for training; make it with: {COMMAND}")
    root = tmp_path_factory.mktemp("base") / "venv"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
    found = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    packages = next(root.glob("lib/python3*/site-packages"))
    shutil.copytree(
        found.stdout.strip(), packages, copy_function=linked, symlinks=True, dirs_exist_ok=True
    )
    # What the coordinator itself needs: this very environment, behind that.
    (packages / "coordinator.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    uv = find_uv()
    assert uv is not None
    linked(str(uv), str(root / "bin/uv"))
    return root / "bin/python"


def version_of(base: Path, name: str) -> str:
    packages = next(base.parents[1].glob("lib/python3*/site-packages"))
    return next(iter(distributions(name=name, path=[str(packages)]))).version


async def asked(
    base: Path,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Client], Awaitable[None]],
) -> None:
    """Ask a coordinator that runs with this Python, whose packages come from a folder."""
    wheels = path / "wheels"
    make_wheel(wheels, "trainer", requires=["torch>=2"])
    # What an index has besides: newer, and older.
    make_wheel(wheels, "torch", "99.0", files={"torch.py": "raise SystemError('not the base')\n"})
    make_wheel(wheels, "torch", "1.0", files={"torch.py": "raise SystemError('not the base')\n"})
    monkeypatch.setenv("SCAIMIND_COORDINATOR_PACKAGES_WHEELS", str(wheels))
    monkeypatch.setattr(sys, "executable", str(base))
    # torch is read from the disk for the first time.
    monkeypatch.setattr(harness, "PATIENCE", 300)
    async with (
        coordinator_process(path / "data") as process,
        client_of(process.port, path / "data/drive") as client,
    ):
        await ask(client)


SCRIPT = """
    import torch, trainer
    print("torch", torch.__version__, torch.__file__)
    print("trainer", trainer.__file__)
    a = torch.arange(6, dtype=torch.float32).reshape(2, 3).requires_grad_()
    (a @ a.T).sum().backward()
    print("gradient", a.grad.sum().item())
"""


@pytest.mark.parametrize("pin", ["torch", "torch=={public}", "torch=={version}", "torch>=2,<3"])
async def test_torch_is_the_bases_and_is_not_installed_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pin: str
) -> None:
    version = version_of(base, "torch")
    pin = pin.format(version=version, public=version.partition("+")[0])
    said: list[str] = []

    async def ask(client: Client) -> None:
        project(client, f"trainer\n{pin}\n", SCRIPT)
        job_id = await submitted(client, with_packages())
        said.extend(await messages(client, job_id))
        assert status_of(await client.end(job_id)) == "COMPLETED", said

    await asked(base, tmp_path, monkeypatch, ask)
    packages = next(base.parents[1].glob("lib/python3*/site-packages"))
    (entry,) = entries(tmp_path / "data")
    assert f"torch {version} {packages}/torch/__init__.py" in said
    assert any(line.startswith(f"trainer {entry}/env/") for line in said)
    assert "gradient 60.0" in said
    assert [line.strip() for line in said if line.strip().startswith("+")] == ["+ trainer==1.0"]
    assert not list(entry.glob("env/lib/python3*/site-packages/torch*"))


@pytest.mark.parametrize("pin", ["torch==1.0", "torch==99.0", "torch<2"])
async def test_a_pin_that_contradicts_the_bases_torch_is_refused_with_the_reason(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pin: str
) -> None:
    reason = ""

    async def ask(client: Client) -> None:
        nonlocal reason
        project(client, f"trainer\n{pin}\n", SCRIPT)
        reason = await failed(client, with_packages())

    await asked(base, tmp_path, monkeypatch, ask)
    assert "The packages of 'requirements.txt' could not be installed" in reason
    assert pin in reason
    assert f"torch=={version_of(base, 'torch')}" in reason
    assert not entries(tmp_path / "data")
