"""The example: what a job does with it, and what its first start lays down."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.local import example
from app.local.example.models import (
    MAKING,
    MODEL_VARIABLE,
    PYTHON_VARIABLE,
    SMOLLM2,
    TINY,
    make_model,
    wanted_models,
)

SCRIPT = Path(example.__file__).with_name("train.py")
PATIENCE = 60


class Job:
    """A job's directory, and its process as a coordinator would start it."""

    def __init__(self, folder: Path, corpus: Path, steps: int, **hyperparameters: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "job.json").write_text(
            json.dumps(
                {
                    "training_config": {
                        "hyperparameters": {
                            "steps": str(steps),
                            "hidden": "32",
                            "log_interval": "5",
                            **hyperparameters,
                        }
                    },
                    "data_config": {"sources": [{"local_path": str(corpus)}], "seed": 7},
                    "output_config": {"checkpoint_interval_steps": 1000},
                }
            )
        )

    def start(self, resume_from: str = "") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            (sys.executable, SCRIPT),
            env={
                **os.environ,
                "SCAIMIND_JOB_CONFIG": str(self.folder / "job.json"),
                "SCAIMIND_CHECKPOINT_DIR": str(self.folder / "checkpoints"),
                "SCAIMIND_METRICS_FILE": str(self.folder / "metrics.jsonl"),
                "SCAIMIND_OUTPUT_DIR": str(self.folder / "output"),
                "SCAIMIND_RESUME_FROM": resume_from,
            },
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, resume_from: str = "") -> str:
        process = self.start(resume_from)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        return output

    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def model(self) -> dict[str, Any]:
        with np.load(self.folder / "output" / "model.npz") as file:
            return dict(file)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drive = tmp_path_factory.mktemp("drive")
    example.install(drive)
    path = drive / example.TENANT / "corpus.jsonl"
    small = path.with_name("small.jsonl")
    small.write_text("".join(path.read_text().splitlines(keepends=True)[:300]))
    return small


def test_it_learns(tmp_path: Path, corpus: Path) -> None:
    job = Job(tmp_path / "job", corpus, steps=150)
    output = job.run()
    metrics = job.metrics()
    assert [each["step"] for each in metrics[:3]] == [1, 5, 10]
    assert metrics[-1]["step"] == metrics[-1]["total_steps"] == 150
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    assert "It writes: " in output
    report = json.loads((job.folder / "output" / "report.json").read_text())
    assert report["validation_loss"] < 0.8 * report["untrained_loss"]
    assert {path.name for path in (job.folder / "output").iterdir()} == {"model.npz", "report.json"}


def test_a_run_that_was_interrupted_ends_where_it_would_have_ended(
    tmp_path: Path, corpus: Path
) -> None:
    through = Job(tmp_path / "through", corpus, steps=120)
    through.run()

    # Slow enough to be met on its way.
    broken = Job(tmp_path / "broken", corpus, steps=120, steps_per_second="20")
    process = broken.start()
    assert process.stdout is not None
    with process.stdout as output:
        while not output.readline().startswith("Step 30 "):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        rest = output.read()
    assert process.wait(PATIENCE) == 0
    assert "Asked to leave: saved, and gone" in rest
    (checkpoint,) = (broken.folder / "checkpoints").iterdir()
    assert not (broken.folder / "output").exists()

    assert f"Going on from {checkpoint.name}" in broken.run(str(checkpoint))
    expected = through.model()
    for name, weights in broken.model().items():
        if name == "alphabet":
            assert (weights == expected[name]).all()
        else:
            np.testing.assert_allclose(weights, expected[name], rtol=1e-4, atol=1e-5)


def test_what_somebody_changed_is_left_alone(tmp_path: Path) -> None:
    assert example.install(tmp_path)
    script = tmp_path / "local" / "train.py"
    corpus = tmp_path / "local" / "corpus.jsonl"
    script.write_text("mine")
    corpus.unlink()

    assert example.install(tmp_path)
    assert script.read_text() == "mine"
    assert corpus.exists()
    assert not example.install(tmp_path)


def test_an_unchanged_script_of_an_earlier_release_becomes_todays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = "print('as it was')\n"
    monkeypatch.setattr(example, "_FORMER_SCRIPTS", {hashlib.sha256(former.encode()).hexdigest()})
    example.install(tmp_path)
    script = tmp_path / "local" / "train.py"
    script.write_text(former)
    assert example.install(tmp_path)
    assert script.read_text() == SCRIPT.read_text()
    script.write_text(former + "# mine\n")
    assert not example.install(tmp_path)
    assert script.read_text() == former + "# mine\n"


def test_it_can_be_held_back(tmp_path: Path, corpus: Path) -> None:
    job = Job(tmp_path / "job", corpus, steps=20, steps_per_second="10")
    began = time.monotonic()
    job.run()
    # A lower bound alone: how much longer it takes is the machine's.
    assert time.monotonic() - began >= 2


def test_the_corpus_is_a_text_of_some_size() -> None:
    texts = list(example.corpus())
    assert sum(map(len, texts)) > 300_000
    assert all(text.isascii() and text.strip() for text in texts)
    assert len(set("".join(texts))) < 120


#: Stands in for the Python of the environment to train in: makes a folder, as the programs do.
_MAKES = '#!/bin/sh\nmkdir -p "$3" && echo {} > "$3/config.json"\n'


async def made(folder: Path, program: str) -> list[str]:
    """What is told when the example's model is made in a drive."""
    python = folder / "python"
    python.write_text(program)
    python.chmod(0o755)
    drive = folder / "local"
    drive.mkdir(exist_ok=True)
    told: list[str] = []
    await make_model(
        TINY, drive, environ={PYTHON_VARIABLE: str(python)}, log=folder / "log", tell=told.append
    )
    assert not list(drive.glob(".*"))
    return told


async def test_a_model_is_made_once_and_appears_as_a_whole(tmp_path: Path) -> None:
    (line,) = await made(tmp_path, "#!/bin/sh\necho no room >&2; mkdir $3; exit 1\n")
    assert "could not be made: no room" in line
    assert not (tmp_path / "local/tiny-model").exists()
    # It is made where no tenant lists, and what a killed start has left is in nobody's way.
    left = tmp_path / f"{MAKING}/tiny-model/model"
    left.mkdir(parents=True)
    leaves = f"{_MAKES}touch $TMPDIR/left\nls -A ../../local > ../../seen\n"
    (line,) = await made(tmp_path, leaves)
    assert not (tmp_path / MAKING / "tiny-model").exists()
    assert (tmp_path / "seen").read_text() == ""
    assert line.endswith("scaidrive://local/tiny-model")
    assert (tmp_path / "local/tiny-model/config.json").exists()
    assert await made(tmp_path, _MAKES) == []


def test_models_are_made_where_there_is_an_environment_for_them(tmp_path: Path) -> None:
    assert wanted_models({}) == wanted_models({MODEL_VARIABLE: "smollm2"}) == ()
    assert wanted_models({PYTHON_VARIABLE: "/p"}) == (TINY,)
    assert wanted_models({PYTHON_VARIABLE: "/p", MODEL_VARIABLE: "smollm2"}) == (TINY, SMOLLM2)
    example.install(tmp_path)
    assert not (tmp_path / "local/sums.jsonl").exists()
    assert example.install(tmp_path, with_model=True)
    lines = (tmp_path / "local/sums.jsonl").read_text().splitlines()
    assert len(lines) == 100
    assert json.loads(lines[23])["messages"][1]["content"] == "It is five."
    pairs = (tmp_path / "local/pairs.jsonl").read_text().splitlines()
    assert json.loads(pairs[23])["chosen"][0]["content"] == "It is five."
    assert not example.install(tmp_path, with_model=True)
