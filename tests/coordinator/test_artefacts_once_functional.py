"""Artefacts are kept once: where they are exported to, with the registered model beside them."""

import os
from pathlib import Path

import pytest

from tests.coordinator.harness import running, status_of

LEAVES = """
    import os
    folder = os.environ["SCAIMIND_OUTPUT_DIR"] + "/weights"
    os.mkdir(folder)
    with open(folder + "/model", "wb") as file:
        file.write(os.urandom(1_000_000))
    os.chmod(folder + "/model", 0o666)
"""


def stored(root: Path) -> int:
    """Bytes of all files of a megabyte below a folder, each counted once."""
    files = {
        (about.st_dev, about.st_ino): about.st_size
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
        for about in (path.stat(),)
    }
    return sum(size for size in files.values() if size == 1_000_000)


@pytest.mark.parametrize("path", ["", "scaidrive://local/exports/mine"])
async def test_a_registered_model_takes_no_second_copy(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as (_, client):
        output = {"path": path, "register_model": True, "model_name": "small"}
        job_id = await client.submit(LEAVES, output_config=output)
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
    exported = tmp_path / "drive" / job.output_path.removeprefix("scaidrive://") / "weights/model"
    model = tmp_path / "atlas/local/small/1/files/weights/model"
    assert exported.read_bytes() == model.read_bytes()
    assert stored(tmp_path) == 1_000_000
    assert not (tmp_path / "jobs" / job_id / "output").exists()
    # Nobody writes to it in place: who replaces the export leaves the model as it is.
    assert model.stat().st_mode & 0o222 == 0
    content = model.read_bytes()
    exported.with_name("new").write_bytes(b"another")
    os.replace(exported.with_name("new"), exported)
    assert model.read_bytes() == content


async def test_a_job_that_exports_to_the_same_place_changes_no_model(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        contents = []
        for name in ("one", "two"):
            output = {
                "path": "scaidrive://local/exports/mine",
                "register_model": True,
                "model_name": name,
            }
            job = await client.end(await client.submit(LEAVES, output_config=output))
            assert status_of(job) == "COMPLETED", job
            model = tmp_path / "atlas/local" / name / "1/files/weights/model"
            contents.append((model, model.read_bytes()))
        for model, content in contents:
            assert model.read_bytes() == content
        assert contents[0][1] != contents[1][1]
