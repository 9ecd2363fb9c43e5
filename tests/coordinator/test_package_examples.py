"""What docs/training-scripts.md says about packages, done; and torch, as jobs find it."""

import importlib.util
import json
import re
import site
from pathlib import Path

import pytest

from tests.coordinator.harness import running, status_of
from tests.coordinator.projects import job, messages, submitted
from tests.coordinator.test_packages_functional import entries, project, run, with_packages
from tests.coordinator.wheels import make_wheel

DOCUMENT = Path(__file__).parents[2] / "docs/training-scripts.md"
#: A file's path, and its content in a fence.
FILE = re.compile(r"^`project/([^`]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAMEWORK = re.compile(r"^The job's `framework`:\n\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_example_of_packages_runs(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    files = dict(FILE.findall(text))
    assert set(files) == {"train.py", "helper.py", "requirements.txt"}
    (framework,) = [json.loads(found) for found in FRAMEWORK.findall(text)]
    config = framework["config"]
    config["working_dir"] = config["working_dir"].replace("<tenant>", "local")
    # It stands for PyPI.
    make_wheel(tmp_path / "wheels", "humanize", "4.9")
    async with running(tmp_path / "data", packages_wheels=tmp_path / "wheels") as (_, client):
        for name, content in files.items():
            client.write(f"project/{name}", content)
        make_wheel(client.drive / "local/project/wheels", "acme_tokens", "1.4.0")
        job_id = await submitted(client, job(framework["custom_script_path"], **config))
        said = await messages(client, job_id)
        assert status_of(await client.end(job_id)) == "COMPLETED", said

    (entry,) = entries(tmp_path / "data")
    told = dict(line.split(": ", 1) for line in said if ": " in line)
    assert "hello from a module beside the script" in said
    assert told["from the folder"].startswith(str(entry))
    assert told["from the index"].startswith(str(entry))
    assert not told["from the coordinator's Python"].startswith(str(tmp_path))
    assert told["arguments"] == "['--epochs', '3']"


async def test_a_build_of_the_base_that_no_index_has_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    (base / "torch-2.99.0+cu999.dist-info").mkdir(parents=True)
    (base / "torch-2.99.0+cu999.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0+cu999\n\nA stand-in."
    )
    (base / "torch.py").write_text("VERSION = '2.99.0+cu999'\n")
    known = site.getsitepackages()
    monkeypatch.setattr(site, "getsitepackages", lambda: [*known, str(base)])
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "trainer", requires=["torch>=2"])
    make_wheel(wheels, "torch", "3.0")
    # At the other levels the stand-in would have to be where this Python is.
    data = tmp_path / "data"
    async with running(data, packages_wheels=wheels, isolation="none") as (_, client):
        project(
            client,
            "trainer\ntorch\n",
            "import torch, trainer; print(torch.VERSION, torch.__file__)",
        )
        status, said = await run(client)

    assert status == "COMPLETED", said
    assert f"2.99.0+cu999 {base}/torch.py" in said
    assert not any(line.strip().startswith("+ torch") for line in said)


@pytest.mark.slow
async def test_pypi_is_installed_from_and_torch_is_the_bases(tmp_path: Path) -> None:
    # Where this environment has no torch, what it has stands in for it.
    base = "torch" if importlib.util.find_spec("torch") else "numpy"
    async with running(tmp_path) as (_, client):
        project(
            client,
            f"einops>=0.7\n{base}\n",
            f"import einops, {base}; print(einops.__file__); print({base}.__file__)",
        )
        job_id = await submitted(client, with_packages())
        said = await messages(client, job_id)
        assert status_of(await client.end(job_id)) == "COMPLETED", said

    paths = [line for line in said if line.endswith("__init__.py")]
    (entry,) = entries(tmp_path)
    assert paths[0].startswith(str(entry))
    assert not paths[1].startswith(str(tmp_path))
    assert not any(line.strip().startswith(f"+ {base}") for line in said)
