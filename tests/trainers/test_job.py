"""The job's configuration is input: what is wrong in it is named."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from app.trainers.errors import TrainingRefused, is_out_of_memory
from app.trainers.job import read_job
from app.trainers.main import unexpected


def submission(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": "first",
        "training_config": {
            "training_type": "SFT",
            "base_model": {"model_id": "scaiatlas://t/tiny", "local_path": "/models/tiny"},
            "framework": {"type": "HF_TRAINER"},
        },
        "data_config": {"sources": [{"path": "scaidrive://t/a.jsonl", "local_path": "/a.jsonl"}]},
        "output_config": {},
    }
    for path, value in changes.items():
        place = config
        *above, last = path.split("__")
        for name in above:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[last] = value
    return config


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "SCAIMIND_JOB_ID": "job-1",
        "SCAIMIND_JOB_CONFIG": str(tmp_path / "config.json"),
        "SCAIMIND_OUTPUT_DIR": str(tmp_path / "output"),
        "SCAIMIND_CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
        "SCAIMIND_RESUME_FROM": "",
    }


def write(environ: dict[str, str], config: Any) -> None:
    Path(environ["SCAIMIND_JOB_CONFIG"]).write_text(json.dumps(config))


def test_what_is_unset_is_what_the_contract_says(environ: dict[str, str]) -> None:
    write(environ, submission())
    job = read_job(environ)
    assert job.data.gradient_accumulation_steps == 1
    assert job.data.sources[0].sampling == 1
    assert job.resume_from is None
    assert job.metrics_file is None
    assert (job.rank, job.world_size, job.is_main) == (0, 1, True)


@pytest.mark.parametrize(
    ("rank", "local", "disk", "does"),
    [
        (0, 0, "1", True),
        (2, 0, "1", False),
        (0, 0, "0", True),
        (1, 1, "0", False),
        (2, 0, "0", True),
        (0, 0, "", True),
    ],
)
def test_one_rank_of_each_disk_does_what_is_done_once_there(
    environ: dict[str, str], rank: int, local: int, disk: str, does: bool
) -> None:
    write(environ, submission())
    variables = {"RANK": str(rank), "LOCAL_RANK": str(local), "SCAIMIND_SHARED_DISK": disk}
    job = read_job({**environ, **variables, "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    assert job.is_main_of_disk == does


def test_a_rank_knows_its_place(environ: dict[str, str]) -> None:
    write(environ, submission())
    job = read_job({**environ, "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    assert (job.rank, job.world_size, job.local_world_size) == (3, 4, 2)
    assert not job.is_main


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_config__validation_split": 1.5}, "data_config.validation_split"),
        ({"data_config__validation_split": "half"}, "must be a number"),
        ({"data_config__max_seq_length": -1}, "data_config.max_seq_length"),
        ({"data_config__max_seq_length": True}, "must be an integer"),
        ({"data_config__seed": 2**70}, "data_config.seed"),
        ({"data_config__sources": []}, "data_config.sources"),
        ({"data_config__sources": "a"}, "must be a list"),
        ({"data_config__preprocess__padding": "left"}, "use one of none, max_length, longest"),
        ({"data_config__preprocess__add_bos": 1}, "must be true or false"),
        ({"output_config__export_format": "onnx"}, "output_config.export_format"),
        ({"training_config__hyperparameters": {"lr": 3}}, "hyperparameters.lr"),
        ({"training_config__base_model__model_id": ""}, "base_model.model_id"),
        ({"training_config__base_model__source": "s3"}, "base_model.source"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], changes: Any, said: str) -> None:
    write(environ, submission(**changes))
    with pytest.raises(TrainingRefused, match=said):
        read_job(environ)


def test_two_tokenizers_are_refused(environ: dict[str, str]) -> None:
    config = submission(
        training_config__base_model__tokenizer_id="a",
        data_config__preprocess__tokenizer_id="b",
    )
    write(environ, config)
    with pytest.raises(TrainingRefused, match="keep one"):
        read_job(environ)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "\x00", "7"])
def test_what_is_no_configuration_is_refused(environ: dict[str, str], text: str) -> None:
    Path(environ["SCAIMIND_JOB_CONFIG"]).write_text(text)
    with pytest.raises(TrainingRefused):
        read_job(environ)


def test_a_variable_that_is_missing_is_named(environ: dict[str, str]) -> None:
    del environ["SCAIMIND_OUTPUT_DIR"]
    write(environ, submission())
    with pytest.raises(TrainingRefused, match="SCAIMIND_OUTPUT_DIR"):
        read_job(environ)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "as where the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "as where the disk is full"),
        # As safetensors and torch say it.
        (ValueError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"), "disk"),
        (KeyError("x"), "the training failed with KeyError"),
        (MemoryError(), "ask for more memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ask for more memory"),
        # As CUDA, torch, C++ and Arrow say it.
        (RuntimeError("CUDA error: out of memory"), "ask for more memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't"), "memory"),
        (RuntimeError("std::bad_alloc"), "ask for more memory"),
        (ValueError("malloc of size 64 failed"), "ask for more memory"),
    ],
)
def test_what_a_library_raises_says_what_it_means(error: Exception, said: str) -> None:
    assert said in unexpected(error)


def test_a_lack_of_memory_is_found_behind_what_a_library_made_of_it() -> None:
    error = ValueError("the data set cannot be made")
    error.__context__ = MemoryError()
    assert is_out_of_memory(error)
    error.__cause__ = KeyError("x")
    assert not is_out_of_memory(error)
    error.__cause__ = RuntimeError("std::bad_alloc")
    assert is_out_of_memory(error)
    # As `raise ... from None` does it.
    error.__cause__ = None
    assert not is_out_of_memory(error)
