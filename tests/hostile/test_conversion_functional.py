"""Exports of what scripts wrote, in formats that they did not write."""

from pathlib import Path

import numpy as np

from tests.coordinator.harness import Client, running, status_of

#: Writes a safetensors file as PyTorch does: with metadata of its own, and BF16.
WRITES_BFLOAT16 = """
    import json, os
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    }).encode()
    with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(b"\\x80\\x3f\\x00\\xc0\\x80\\x7f\\x00\\x00")
    os.symlink("/etc/passwd", os.environ["SCAIMIND_OUTPUT_DIR"] + "/passwd")
"""


async def failure(client: Client, export_format: str, script: str) -> str:
    job_id = await client.submit(script, output_config={"export_format": export_format})
    job = await client.end(job_id)
    assert status_of(job) == "FAILED", job
    return job.error_message


async def test_a_model_of_pytorch_is_exported_as_npz(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            WRITES_BFLOAT16,
            output_config={"path": "scaidrive://local/out", "export_format": "npz"},
        )
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        with np.load(client.drive / "local" / "out" / "model.npz") as found:
            assert found["w"].tolist() == [[1.0, -2.0], [np.inf, 0.0]]
            assert str(found["format"]) == "pt"
        log = [entry.message for entry in await client.log(job_id)]
        assert any("Left out" in line and "passwd (symbolic link)" in line for line in log), log


async def test_what_cannot_be_converted_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    hostile = {
        "np.save(out + '/a.npy', 1); np.savez(out + '/m.npz', a=np.array([{}]))": (
            "m.npz: its array 'a' holds Python objects, which are never unpickled;"
            " save it as numbers"
        ),
        "open(out + '/m.npz', 'wb').write(b'PK')": "m.npz: it is damaged, or not what its name",
        "os.makedirs(out + '/sub'); open(out + '/sub/m.npz', 'wb').close()": "sub/m.npz: it is",
        "open(out + '/m.txt', 'wb').close()": "neither a .npz nor a .safetensors file",
    }
    async with running(tmp_path) as (_, client):
        for code, problem in hostile.items():
            script = f"import os, numpy as np; out = os.environ['SCAIMIND_OUTPUT_DIR']; {code}"
            assert problem in await failure(client, "safetensors", script)
        assert not list((client.drive / "local").glob("jobs/*/output"))
        deep = """
            import os
            os.chdir(os.environ["SCAIMIND_OUTPUT_DIR"])
            for _ in range(1500):
                os.mkdir("d"); os.chdir("d")
        """
        assert "64 deep" in await failure(client, "tar.gz", deep)
