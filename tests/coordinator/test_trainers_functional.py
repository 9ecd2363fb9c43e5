"""Submissions without a script, by what the environment to train in says, or does not say.

The environment is a program that prints what the real one would: those tests that train are in
tests/trainers.
"""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.trainers import asking
from app.coordinator.trainers.asking import Trainers
from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    SubmitJobRequest,
    SubmitJobResponse,
    TrainingType,
)
from tests.coordinator.harness import Client, running, status_of
from tests.coordinator.test_trainers_schema import PARAMETERS

SCHEMA = json.dumps({"version": 1, "training_types": {"SFT": {"hyperparameters": PARAMETERS}}})


def environment(path: Path, script: str = f"echo libraries say something; echo '{SCHEMA}'") -> Path:
    """The Python of an environment whose programs all do the same."""
    python = path / "environment/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return python


def request(client: Client, **changes: Any) -> SubmitJobRequest:
    made = SubmitJobRequest(name="test")
    made.training_config.training_type = TrainingType.TRAINING_TYPE_SFT
    made.training_config.framework.type = FrameworkType.FRAMEWORK_TYPE_HF_TRAINER
    made.training_config.base_model.model_id = client.write("model/config.json", "{}").rpartition(
        "/"
    )[0]
    made.data_config.sources.add(path=client.write("data.jsonl", '{"text": "a"}\n'))
    for name, value in changes.items():
        made.MergeFrom(SubmitJobRequest(**{name: value}))
    return made


async def refused(client: Client, submitted: SubmitJobRequest) -> tuple[grpc.StatusCode, str]:
    """Why a submission is refused, whether it is to be carried out or only checked."""
    reasons = []
    for validate_only in (True, False):
        submitted.validate_only = validate_only
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.call("SubmitJob", submitted)
        reasons.append((raised.value.code(), raised.value.details() or ""))
    assert reasons[0] == reasons[1]
    return reasons[0]


async def check(client: Client, **changes: Any) -> SubmitJobResponse:
    answer: SubmitJobResponse = await client.call(
        "SubmitJob", request(client, validate_only=True, **changes)
    )
    return answer


async def test_without_an_environment_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as (_, client):
        code, reason = await refused(client, request(client))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "training_config.framework.type: HF_TRAINER is not available" in reason
    assert "scripts/run --with-trainers" in reason


async def test_hyperparameters_are_checked_before_a_job_waits_for_its_turn(tmp_path: Path) -> None:
    async with running(tmp_path / "data", trainers_python=environment(tmp_path)) as (_, client):
        good = {"hyperparameters": {"lr": "1e-4", "max_steps": "3"}}
        assert list((await check(client, training_config=good)).check.warnings) == []
        bad = {"hyperparameters": {"learnig_rate": "1", "max_steps": "many"}}
        code, reason = await refused(client, request(client, training_config=bad))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "training_config.hyperparameters.learnig_rate: " in reason
        assert "did you mean 'learning_rate'?" in reason
        assert "training_config.hyperparameters.max_steps: 'many' is not of type int" in reason


SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size")
MEGATRON = {
    "config": {
        name: {"type": "int", "choices": None, "aliases": [alias]}
        for name, alias in zip(SIZES, ("tp", "pp"), strict=True)
    },
    "training_types": ["SFT"],
    "model_types": ["llama"],
    "model_parallel": SIZES,
    "needs_gpus": True,
}


async def test_what_megatron_does_not_do_is_refused_with_all_reasons(tmp_path: Path) -> None:
    schema = json.dumps({**json.loads(SCHEMA), "frameworks": {"MEGATRON": MEGATRON}})
    python = environment(tmp_path, f"echo '{schema}'")
    async with running(tmp_path / "data", trainers_python=python) as (_, client):
        submitted = request(client)
        client.write("model/config.json", '{"model_type": "gemma3"}')
        framework = submitted.training_config.framework
        framework.type = FrameworkType.FRAMEWORK_TYPE_MEGATRON
        framework.config["tensor_paralel_size"] = "2"
        framework.config["pp"] = "two"
        _, reason = await refused(client, submitted)
        where = "training_config.framework"
        for said in (
            "resource_config.gpu_count: MEGATRON needs NVIDIA GPUs, one for each process",
            f"{where}.config.tensor_paralel_size: 'tensor_paralel_size' is not a setting",
            f"{where}.config.pp: 'two' is not of type int",
        ):
            assert said in reason
        submitted.training_config.training_type = TrainingType.TRAINING_TYPE_LORA
        _, reason = await refused(client, submitted)
        assert "training_config.training_type: MEGATRON does SFT alone" in reason
        framework.config.clear()
        framework.config["pp"] = "3"
        framework.distributed.config["tp"] = "2"
        framework.distributed.world_size = 4
        _, reason = await refused(client, submitted)
        assert f"{where}.config: {SIZES[0]} times {SIZES[1]} is 6, which does not" in reason
        framework.config["pp"] = "2"
        submitted.training_config.training_type = TrainingType.TRAINING_TYPE_SFT
        submitted.resource_config.gpu_count = 4
        code, reason = await refused(client, submitted)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "MEGATRON cannot train a model of the type 'gemma3', only llama" in reason


async def test_what_belongs_to_scripts_and_what_is_missing_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data", trainers_python=environment(tmp_path)) as (_, client):
        submitted = SubmitJobRequest(name="test")
        framework = submitted.training_config.framework
        framework.type = FrameworkType.FRAMEWORK_TYPE_DEEPSPEED
        framework.custom_script_path = "scaidrive://local/train.py"
        framework.config["working_dir"] = "scaidrive://local/project"
        submitted.output_config.export_format = "gguf"
        code, reason = await refused(client, submitted)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        for where in (
            "training_config.framework.custom_script_path",
            "training_config.framework.config.working_dir",
            "training_config.base_model.model_id",
            "training_config.training_type",
            "data_config.sources",
            "output_config.export_format",
        ):
            assert f"{where}: " in reason
        other = request(client)
        other.training_config.base_model.revision = "v7"
        code, reason = await refused(client, other)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "base_model.revision: is of a hub's model or of one in ScaiAtlas" in reason
        other = request(client)
        other.training_config.training_type = TrainingType.TRAINING_TYPE_DPO
        code, reason = await refused(client, other)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "the trainers do not know DPO; they know SFT" in reason


async def test_what_a_submission_names_besides_must_be_there(tmp_path: Path) -> None:
    async with running(tmp_path / "data", trainers_python=environment(tmp_path)) as (_, client):
        adapter = '{"base_model_name_or_path": "scaidrive://local/base"}'
        client.write("model/adapter_config.json", adapter)
        submitted = request(client)
        submitted.data_config.preprocess.tokenizer_id = "scaidrive://local/tokenizer"
        code, reason = await refused(client, submitted)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "it is an adapter of 'scaidrive://local/base'" in reason
        assert "data_config.preprocess.tokenizer_id: scaidrive://local/tokenizer does not" in reason
        client.write("base/config.json", "{}")
        client.write("tokenizer/tokenizer.json", "{}")
        submitted.validate_only = True
        await client.call("SubmitJob", submitted)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no module named torch >&2; exit 3", "its program ended with status 3"),
        ("echo hello", "what its program printed is not a schema"),
        ("head -c 4200000 /dev/zero", "it printed more than"),
    ],
)
async def test_an_environment_that_does_not_work_is_told_and_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    python = environment(tmp_path, script)
    async with running(tmp_path / "data", trainers_python=python) as (_, client):
        code, told = await refused(client, request(client))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert reason in told
        assert str(tmp_path) not in told
        python.write_text(f"#!/bin/sh\necho '{SCHEMA}'\n")
        monkeypatch.setattr(asking, "_PAUSE", 0.0)
        assert (await check(client)).check.would_start


async def test_an_environment_that_the_jobs_users_cannot_read_is_told_before(
    tmp_path: Path,
) -> None:
    python = environment(tmp_path)
    # Its user may pass, others may not.
    python.parent.parent.chmod(0o700)
    trainers = Trainers(python, readable=("/usr", "/bin"), other_users=True)
    trainers.start()
    try:
        assert "users that jobs run as cannot read it" in (await trainers.rules()).refused
    finally:
        await trainers.close()


async def test_before_the_environment_has_answered_a_job_is_taken_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    python = environment(tmp_path, "sleep 600")
    async with running(tmp_path / "data", trainers_python=python) as (_, client):
        unknown = {"hyperparameters": {"learnig_rate": "1"}}
        answer = await check(client, training_config=unknown)
        (warning,) = answer.check.warnings
        assert warning.startswith("training_config.hyperparameters: could not be checked")
        answer = await client.call("SubmitJob", request(client, training_config=unknown))
        assert warning in answer.message
        # The program is the environment's, which sleeps; whatever runs it can be cancelled.
        await client.until_status(answer.job_id, "TRAINING")


async def test_a_run_that_stands_still_says_so_in_the_jobs_message(tmp_path: Path) -> None:
    script = """
        import json, os, pathlib, time
        def tell(**line):
            with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as file:
                print(json.dumps(line), file=file, flush=True)
        tell(step=5, loss=1.0)
        tell(step=5, stalled_seconds=42.4)
        while not pathlib.Path("go").exists():
            time.sleep(0.05)
        tell(step=6, loss=1.0)
        time.sleep(600)
    """
    async with running(tmp_path / "data") as (_, client):
        job_id = await client.submit(script)
        job = await client.until(job_id, lambda job: "No step for 42 s" in job.message)
        assert job.message.startswith("Run 1 on local. No step for 42 s after step 5;")
        (tmp_path / "data/jobs" / job_id / "work/go").touch()
        await client.until(job_id, lambda job: job.message == "Run 1 on local.")


async def test_a_model_of_a_hub_that_cannot_be_had_fails_the_job_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    python = environment(tmp_path)
    async with running(tmp_path / "data", trainers_python=python) as (_, client):
        submitted = request(client)
        submitted.training_config.base_model.model_id = "acme/tiny"
        submitted.training_config.environment["HF_HUB_OFFLINE"] = "1"
        answer = await client.call("SubmitJob", submitted)
        job = await client.end(answer.job_id)
        assert status_of(job) == "FAILED"
        assert "acme/tiny is not in this machine's cache of models" in job.error_message
        assert "HF_HUB_OFFLINE is set" in job.error_message
        assert job.started_at.ToMicroseconds() == 0
