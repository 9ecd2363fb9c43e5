"""One function for each operation of the API: the request, and what its answer becomes."""

import uuid
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from scaimind import models
from scaimind.core.commands import API, Command, Emit, Request
from scaimind.core.retries import call, exchange, parsed
from scaimind.errors import ProtocolError
from scaimind.model import Model

_M = TypeVar("_M", bound=Model)
_T = TypeVar("_T")
#: The commands of an operation, and what it returns.
Steps: TypeAlias = Generator[Command, Any, _T]
Body: TypeAlias = Mapping[str, Any]


def path(*parts: str) -> str:
    """Return a path below the API's root; each part is one segment, whatever is in it."""
    return "".join("/" + quote(part, safe="") for part in parts)


def query(**arguments: Any) -> tuple[tuple[str, str], ...]:
    """Return arguments without those that are None; a list is repeated."""
    pairs: list[tuple[str, str]] = []
    for name, value in arguments.items():
        if value is None:
            continue
        one_value = isinstance(value, str) or not isinstance(value, Iterable)
        for each in (value,) if one_value else value:
            text = str(each)
            if isinstance(each, bool):
                text = text.lower()
            elif isinstance(each, datetime):
                text = each.isoformat()
            pairs.append((name, text))
    return tuple(pairs)


def key(given: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header of an Idempotency-Key: the one that was given, or a new one."""
    return (("Idempotency-Key", given or uuid.uuid4().hex),)


def data(request: Request) -> Steps[Any]:
    """Make a request and return the `data` of its answer."""
    answer = yield from call(request)
    if not isinstance(answer, dict) or "data" not in answer:
        raise ProtocolError(f"The answer of {request.method} {request.path} has no data.")
    return answer["data"]


def one(kind: type[_M], request: Request) -> Generator[Command, Any, _M]:
    """Make a request for one object."""
    return kind.of((yield from data(request)))


def pages(
    kind: type[Model],
    name: str,
    at: str,
    arguments: tuple[tuple[str, str], ...],
    *,
    root: str = API,
) -> Generator[Command, Any, None]:
    """Emit every object of a list, page by page (AIP-158); `name` is the list's field."""
    token = ""
    while True:
        more = (("page_token", token),) if token else ()
        page = yield from data(Request("GET", at, (*arguments, *more), root=root))
        for each in page.get(name, ()):
            yield Emit(kind.of(each))
        before, token = token, page.get("next_page_token", "")
        if not token:
            return
        if token == before:
            raise ProtocolError(f"The pages of {at} do not end.")


# Jobs


def submit_job(body: Body, idempotency_key: str | None) -> Steps[models.SubmitJobResponse]:
    """Queue a training job."""
    return one(
        models.SubmitJobResponse,
        Request("POST", "/jobs", body=dict(body), headers=key(idempotency_key), timeout=120.0),
    )


def get_job(job_id: str) -> Steps[models.Job]:
    """Get a job."""
    return one(models.Job, Request("GET", path("jobs", job_id)))


def check_job(body: Body) -> Steps[models.SubmissionCheckSchema]:
    """Check a submission; nothing is stored, so that it can be repeated."""
    arguments = query(validate_only=True)
    request = Request("POST", "/jobs", arguments, dict(body), timeout=120.0, safe=True)
    return one(models.SubmissionCheckSchema, request)


def list_jobs(**arguments: Any) -> Steps[None]:
    """Emit the tenant's jobs."""
    return pages(models.Job, "jobs", "/jobs", query(**arguments))


def update_job(
    job_id: str, name: str | None, labels: Mapping[str, str | None] | None
) -> Steps[models.Job]:
    """Change a job's name and labels (RFC 7396)."""
    patch: dict[str, Any] = {}
    if name is not None:
        patch["name"] = name
    if labels is not None:
        patch["labels"] = dict(labels)
    headers = (("Content-Type", "application/merge-patch+json"),)
    return one(models.Job, Request("PATCH", path("jobs", job_id), body=patch, headers=headers))


def delete_job(job_id: str) -> Steps[models.DeletedJob]:
    """Delete a job. A repetition may find it deleted already."""
    return one(models.DeletedJob, Request("DELETE", path("jobs", job_id)))


def act_on_job(job_id: str, action: str, body: Body) -> Steps[models.Job]:
    """Cancel, pause, resume or retry a job."""
    headers = key(None) if action == "retry" else ()
    request = Request("POST", path("jobs", job_id, action), body=dict(body), headers=headers)
    return one(models.Job, request)


def list_checkpoints(job_id: str) -> Steps[None]:
    """Emit a job's checkpoints, newest first."""
    return pages(models.Checkpoint, "checkpoints", path("jobs", job_id, "checkpoints"), ())


def job_metrics(job_id: str, **arguments: Any) -> Steps[models.GetJobMetricsResponse]:
    """Get a job's numbers."""
    at = path("jobs", job_id, "metrics")
    return one(models.GetJobMetricsResponse, Request("GET", at, query(**arguments)))


# Evaluations


def submit_evaluation(body: Body, idempotency_key: str | None) -> Steps[models.Evaluation]:
    """Queue an evaluation."""
    return one(
        models.Evaluation,
        Request(
            "POST", "/evaluations", body=dict(body), headers=key(idempotency_key), timeout=120.0
        ),
    )


def get_evaluation(evaluation_id: str) -> Steps[models.Evaluation]:
    """Get an evaluation."""
    return one(models.Evaluation, Request("GET", path("evaluations", evaluation_id)))


def list_evaluations(page_size: int | None) -> Steps[None]:
    """Emit the tenant's evaluations, as jobs."""
    return pages(models.Job, "jobs", "/evaluations", query(page_size=page_size))


# Data


def validate_data(sources: Iterable[Body]) -> Steps[models.ValidateDataResponse]:
    """Reach and parse data sources."""
    body = {"data_sources": [dict(each) for each in sources]}
    return one(
        models.ValidateDataResponse,
        Request("POST", "/data/validate", body=body, timeout=120.0, safe=True),
    )


def data_cache(node_id: str | None) -> Steps[models.DataCache]:
    """Get what the data cache holds."""
    return one(models.DataCache, Request("GET", "/data/cache", query(node_id=node_id)))


# The cluster


def cluster_status() -> Steps[models.ClusterStatus]:
    """Get cluster-wide totals."""
    return one(models.ClusterStatus, Request("GET", "/cluster"))


def list_nodes(status: str | None) -> Steps[None]:
    """Emit the cluster's nodes."""
    return pages(models.Node, "nodes", "/cluster/nodes", query(status_filter=status))


def get_node(node_id: str) -> Steps[models.Node]:
    """Get a node."""
    return one(models.Node, Request("GET", path("cluster", "nodes", node_id)))


def act_on_node(node_id: str, action: str, body: Body) -> Steps[models.Node]:
    """Drain or enable a node."""
    return one(
        models.Node, Request("POST", path("cluster", "nodes", node_id, action), body=dict(body))
    )


def queue_status(
    queue_name: str | None, page_size: int | None, page_token: str | None
) -> Steps[models.GetQueueStatusResponse]:
    """Get a page of the tenant's waiting jobs."""
    arguments = query(queue_name=queue_name, page_size=page_size, page_token=page_token)
    return one(models.GetQueueStatusResponse, Request("GET", "/queue", arguments))


def summary(days: int | None) -> Steps[models.SummaryAnswer]:
    """Get a summary of the tenant's jobs."""
    return one(models.SummaryAnswer, Request("GET", "/summary", query(days=days)))


def plain(
    method: str, at: str, arguments: tuple[tuple[str, str], ...], body: Any
) -> Generator[Command, Any, Any]:
    """Make any request; return what its JSON holds, the text of other answers, None without."""
    answer = yield from exchange(Request(method, at, arguments, body))
    if not answer.body:
        return None
    if "json" in answer.headers.get("content-type", "").partition(";")[0]:
        return parsed(answer)
    return answer.body.decode(errors="replace")
