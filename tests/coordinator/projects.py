"""Jobs that are folders, as tests submit them."""

from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.coordinator.harness import Client, status_of, submission


def job(script: str, **config: str) -> SubmitJobRequest:
    """A submission of a script with `framework.config`."""
    request = submission()
    request.training_config.framework.custom_script_path = script
    request.training_config.framework.config.update(config)
    return request


async def submitted(client: Client, request: SubmitJobRequest) -> str:
    """Submit it; returns the job's id."""
    job_id: str = (await client.call("SubmitJob", request)).job_id
    return job_id


async def messages(client: Client, job_id: str) -> list[str]:
    """What the job's log says, up to its end."""
    return [entry.message for entry in await client.log(job_id)]


async def failed(client: Client, request: SubmitJobRequest) -> str:
    """What a job says that cannot be prepared."""
    job_id = await submitted(client, request)
    said = await messages(client, job_id)
    ended = await client.end(job_id)
    assert status_of(ended) == "FAILED"
    assert ended.error_message in said
    return ended.error_message
