"""What may be changed of a job once it is submitted: its name and its labels."""

from typing import Final

from app.coordinator.errors import InvalidArgument, all_problems
from app.coordinator.jobs.model import JobRecord
from app.coordinator.submission.checks import check_texts
from app.coordinator.submission.training import MAX_SUBMISSION
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest, UpdateJobRequest

#: Labels that tell what a job is: they stay as they are.
_RESERVED: Final = "type"
_RESERVED_PREFIX: Final = "scaimind/"
_LABEL: Final = "labels."


def changed_submission(job: JobRecord, request: UpdateJobRequest) -> SubmitJobRequest:
    """What the job is submitted with from here on (AIP-134). Raises InvalidArgument.

    Without a mask all fields that are set are changed. A label whose path is in
    the mask is removed where the request does not have it.
    """
    paths = list(request.update_mask.paths)
    if not paths:
        paths = [name for name in ("name", "labels") if getattr(request, name)]
    changed = SubmitJobRequest()
    changed.CopyFrom(job.submission)
    changed.name = job.name
    with all_problems() as problems:
        for path in paths:
            with problems.collected():
                _apply(path, changed, request)
        check_texts(changed, problems)
        if changed.ByteSize() > MAX_SUBMISSION:
            problems.add("labels", f"the job would have more than {MAX_SUBMISSION} bytes")
    return changed


def _apply(path: str, changed: SubmitJobRequest, request: UpdateJobRequest) -> None:
    if path == "name":
        changed.name = request.name
    elif path == "labels":
        for key in [key for key in changed.labels if not _is_reserved(key)]:
            del changed.labels[key]
        for key, value in request.labels.items():
            _require_free(key)
            changed.labels[key] = value
    elif path.startswith(_LABEL):
        key = path.removeprefix(_LABEL)
        _require_free(key)
        if key in request.labels:
            changed.labels[key] = request.labels[key]
        elif key in changed.labels:
            del changed.labels[key]
    else:
        raise InvalidArgument(
            "update_mask", "may only have name, labels, and labels.<key> for one label"
        )


def _is_reserved(key: str) -> bool:
    return key == _RESERVED or key.startswith(_RESERVED_PREFIX)


def _require_free(key: str) -> None:
    if _is_reserved(key):
        raise InvalidArgument(f"{_LABEL}{key}", "cannot be set: it is the platform's own")
