"""An export that has failed is asked for again, without training again."""

from pathlib import Path
from typing import Any

from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, EnableNodeRequest
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import Job, ResourceConfig, RetryJobRequest
from tests.coordinator.harness import Client, running, status_of

#: Leaves a checkpoint and a model, and ends when the test lets it.
TRAINS = """
    import json, os, time
    checkpoint = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-1"
    os.makedirs(checkpoint, exist_ok=True)
    with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as file:
        file.write(json.dumps({"step": 7, "loss": 0.5}) + "\\n")
    open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model.txt", "w").write("a model")
    print("trained")
    while not os.path.exists("go"):
        time.sleep(0.02)
"""


async def retry(client: Client, job_id: str, **request: Any) -> Job:
    """Retry a job; returns how its child ended."""
    child: Job = await client.call("RetryJob", RetryJobRequest(job_id=job_id, **request))
    return await client.end(child.job_id)


async def ran(client: Client, job: Job) -> bool:
    return any(entry.message == "trained" for entry in await client.log(job.job_id))


async def failed(client: Client, data: Path, **changes: Any) -> tuple[Job, Path]:
    """A job whose export met a file in the place of a directory, and that file."""
    output = {"path": "scaidrive://local/out/model", **changes.pop("output_config", {})}
    job_id = await client.submit(TRAINS, output_config=output, **changes)
    await client.until_line(job_id, "trained")
    # It was not there at the submission.
    obstacle = client.drive / "local" / "out"
    obstacle.write_text("")
    (data / "jobs" / job_id / "work" / "go").touch()
    job = await client.end(job_id)
    assert status_of(job) == "FAILED", job
    assert "Retry the job to export its artefacts again without another run" in job.error_message
    return job, obstacle


async def test_a_retry_exports_what_was_trained(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        model = {"register_model": True, "model_name": "small", "export_format": "tar.gz"}
        asked = ResourceConfig(cpu_count=4)
        job, obstacle = await failed(client, tmp_path, output_config=model, resource_config=asked)
        # As long as nothing is mended, it fails in the same way, and can be retried again.
        again = await retry(client, job.job_id)
        assert status_of(again) == "FAILED"
        assert again.error_message == job.error_message
        obstacle.unlink()
        # What it asked for is taken by another job: an export needs none of it.
        other = await client.submit(TRAINS, resource_config=ResourceConfig(cpu_count=4))
        await client.until_line(other, "trained")
        done = await retry(client, again.job_id)
        assert status_of(done) == "COMPLETED", done
        assert done.parent_job_id == again.job_id
        assert done.output_path == "scaidrive://local/out/model"
        assert (obstacle / "model" / "model.tar.gz").is_file()
        assert not await ran(client, done)
        assert (tmp_path / "atlas" / "local" / "small" / "1" / "manifest.json").is_file()
        (tmp_path / "jobs" / other / "work" / "go").touch()
        await client.end(other)


async def test_a_retry_with_a_checkpoint_or_other_resources_trains_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job, obstacle = await failed(client, tmp_path)
        obstacle.unlink()
        requests: list[dict[str, Any]] = [
            {"checkpoint_id": "step-1"},
            {"modify_resources": True, "new_resource_config": ResourceConfig(cpu_count=1)},
        ]
        for request in requests:
            child = await client.call("RetryJob", RetryJobRequest(job_id=job.job_id, **request))
            await client.until_line(child.job_id, "trained")
            (tmp_path / "jobs" / child.job_id / "work" / "go").touch()
            assert status_of(await client.end(child.job_id)) == "COMPLETED"


async def test_a_job_that_failed_before_its_export_trains_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("print('trained'); raise SystemExit(3)")
        assert "Retry" not in (await client.end(job_id)).error_message
        assert await ran(client, await retry(client, job_id))


async def test_artefacts_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job, obstacle = await failed(client, tmp_path)
        obstacle.unlink()
        (tmp_path / "jobs" / job.job_id / "output").rename(tmp_path / "elsewhere")
        again = await retry(client, job.job_id)
        assert status_of(again) == "FAILED"
        assert f"The artefacts of {job.job_id} no longer exist" in again.error_message


async def test_an_export_again_outlives_the_coordinator(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job, obstacle = await failed(client, tmp_path)
        obstacle.unlink()
        await client.call("DrainNode", DrainNodeRequest(node_id="local"))
        child = await client.call("RetryJob", RetryJobRequest(job_id=job.job_id))
    async with running(tmp_path) as (_, client):
        await client.call("EnableNode", EnableNodeRequest(node_id="local"))
        done = await client.end(child.job_id)
        assert status_of(done) == "COMPLETED", done
        assert not await ran(client, done)


async def test_an_evaluation_is_exported_again_with_its_results(tmp_path: Path) -> None:
    code = """
        class Model:
            def score(self, prompt, continuation):
                return -1.0, 1

        def load(directory):
            print("trained")
            return Model()
    """
    async with running(tmp_path) as (_, client):
        client.write("model/scaimind_model.py", code)
        data = client.write("text.jsonl", '{"text": "a"}\n')
        # Its results are to be brought where a file is.
        evaluation = await client.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(
                model_uri="scaidrive://local/model",
                benchmarks=[Benchmark(name="perplexity", dataset=data)],
            ),
        )
        obstacle = client.drive / "local" / "jobs" / evaluation.evaluation_id / "output"
        obstacle.parent.mkdir(parents=True, exist_ok=True)
        obstacle.write_text("")
        ended = await client.end(evaluation.evaluation_id)
        assert status_of(ended) == "FAILED", ended
        done = await retry(client, evaluation.evaluation_id)
        assert status_of(done) == "COMPLETED", done
        assert not await ran(client, done)
        found = await client.call("GetEvaluation", GetEvaluationRequest(evaluation_id=done.job_id))
        assert found.results[0].scores["loss"] == 1.0
