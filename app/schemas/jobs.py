"""Bodies and queries of the job endpoints."""

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validates_schema
from typing_extensions import override

from app.schemas.configs import (
    DataConfigSchema,
    OutputConfigSchema,
    ResourceConfigSchema,
    SchedulingConfigSchema,
    TrainingConfigSchema,
    label_map,
)
from app.schemas.fields import (
    INT64_MAX,
    Choice,
    Flag,
    Many,
    QueryFlag,
    QueryWhole,
    Text,
    TextList,
    Time,
    Whole,
)
from app.schemas.ids import Id
from app.schemas.labels import LabelChanges, LabelFilter
from app.schemas.loading import Body, Query

JOB_STATUSES = (
    "PENDING",
    "QUEUED",
    "SCHEDULING",
    "PREPARING",
    "TRAINING",
    "CHECKPOINTING",
    "PAUSED",
    "EVALUATING",
    "EXPORTING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "PREEMPTED",
)


class SubmitJobSchema(Body):
    """`POST /jobs`."""

    EXAMPLE: ClassVar[dict[str, Any] | None] = {
        "name": "first steps",
        "training_config": {
            "training_type": "FULL_FINETUNE",
            "base_model": {"model_id": "a small one"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
            "hyperparameters": {"steps": "300"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {"gpu_count": 0, "cpu_count": 1},
    }

    name = Text("Human-readable label.", most=256, blank=False, required=True)
    training_config = fields.Nested(TrainingConfigSchema, required=True)
    data_config = fields.Nested(DataConfigSchema, required=True)
    resource_config = fields.Nested(ResourceConfigSchema, required=True)
    output_config = fields.Nested(OutputConfigSchema, allow_none=True)
    scheduling_config = fields.Nested(SchedulingConfigSchema, allow_none=True)
    labels = label_map("Labels in free form.")

    @validates_schema(skip_on_field_errors=False)
    def _has_data(self, data: Mapping[str, Any], **_: Any) -> None:
        framework = (data.get("training_config") or {}).get("framework") or {}
        sources = (data.get("data_config") or {}).get("sources")
        if sources == [] and framework.get("type") != "CUSTOM":
            raise ValidationError(
                {
                    "data_config": {
                        "sources": ["Must have at least one entry unless the framework is CUSTOM."]
                    }
                }
            )


class SubmitJobQuery(Query):
    """`POST /jobs`."""

    validate_only = QueryFlag(
        "Whether to check the submission, and do nothing else (AIP-163).", load_default=False
    )


class SubmissionCheckSchema(Schema):
    """What would become of a submission that is valid."""

    valid = Flag("Always true: a submission that is not valid is answered with an error.")
    would_start = Flag("Whether the job would start at once.")
    estimated_wait_seconds = Whole("0 when it would start at once.", most=INT64_MAX)
    waiting_for = Text("What it would wait for, for people; empty when it would start at once.")
    warnings = TextList("What is allowed but probably not meant, for people.")


class CancelJobSchema(Body):
    """`POST /jobs/{job_id}/cancel`."""

    reason = Text("Reason, for people.", load_default="")


class PauseJobSchema(Body):
    """`POST /jobs/{job_id}/pause`."""

    save_checkpoint = Flag("Whether to save a checkpoint first.", load_default=True)


class ResumeJobSchema(Body):
    """`POST /jobs/{job_id}/resume`."""

    checkpoint_id = Id("Empty resumes from the newest checkpoint.", load_default="")


class RetryJobSchema(Body):
    """`POST /jobs/{job_id}/retry`."""

    checkpoint_id = Id(
        "Empty starts a preempted job from its newest checkpoint, else where the job itself was"
        " to start.",
        load_default="",
    )
    modify_resources = Flag("Whether to run with new_resource_config.", load_default=False)
    new_resource_config = fields.Nested(ResourceConfigSchema, allow_none=True, load_default=None)

    @validates_schema(skip_on_field_errors=False)
    def _has_its_resources(self, data: Mapping[str, Any], **_: Any) -> None:
        if "modify_resources" not in data or "new_resource_config" not in data:
            return
        given = data["new_resource_config"] is not None
        if data["modify_resources"] and not given:
            raise ValidationError("Required when modify_resources is true.", "new_resource_config")
        if given and not data["modify_resources"]:
            raise ValidationError(
                "Only allowed when modify_resources is true.",
                "new_resource_config",
            )


class ChangeJobSchema(Body):
    """`PATCH /jobs/{job_id}`: a JSON merge patch (RFC 7396) of these fields alone.

    Null removes a label, or all of them.
    """

    EXAMPLE: ClassVar[dict[str, Any] | None] = {
        "name": "a better name",
        "labels": {"team": "nlp", "draft": None},
    }

    name = Text("New name.", most=256, blank=False)
    labels = LabelChanges("Labels to set; null removes one. Others stay as they are.")

    @pre_load
    def _without_nulls(self, data: Any, **_: Any) -> Any:
        """Let null arrive: it removes, and a job has a name."""
        return data

    @override
    def on_bind_field(self, field_name: str, field_obj: "fields.Field[Any]") -> None:
        """Leave to each field what null means for it."""


class PageQuery(Query):
    """Which page of a list (AIP-158)."""

    page_size = QueryWhole(
        "Maximum number of entries on a page.", least=1, most=100, load_default=20
    )
    page_token = Text("next_page_token of the previous page.", most=4096, load_default="")


class ListJobsQuery(PageQuery):
    """`GET /jobs`. What `status` gives is loaded as `statuses`."""

    status = Many(
        "Statuses to include; none means all.",
        Choice("A status.", JOB_STATUSES),
        most=len(JOB_STATUSES),
        attribute="statuses",
        load_default=list,
    )
    label = LabelFilter(
        "Labels that a job must have, each as key=value.",
        attribute="label_filter",
        load_default=dict,
    )
    name = Text(
        "Text that the name contains, whatever its case.",
        most=256,
        attribute="name_contains",
        load_default="",
    )
    user_id = Many(
        "Users whose jobs to include; none means all.",
        Text("A user.", most=256, blank=False),
        most=64,
        attribute="user_ids",
        load_default=list,
    )
    created_after = Time("Jobs that were created at this time or later.")
    kind = Choice(
        "Jobs that train, or those that evaluate (label type=evaluation); both if not given.",
        ("training", "evaluation"),
    )
    parent_job_id = Text(
        "Jobs that this one is the parent of: its retries.", most=256, load_default=""
    )
    order_by = Text("Field to order by, optionally followed by desc.", most=256, load_default="")

    @post_load
    def _completed(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Neither has a text that stands for none."""
        return {"created_after": None, "kind": "", **data}


class DeletedJob(Schema):
    """A job that is no more."""

    job_id = fields.String(required=True)
    freed_bytes = fields.Integer(
        required=True,
        metadata={"description": "Of its log, metrics, checkpoints and directories."},
    )


PAGE_QUERY = PageQuery()
SUBMIT_JOB_BODY = SubmitJobSchema()
SUBMIT_JOB_QUERY = SubmitJobQuery()
SUBMISSION_CHECK = SubmissionCheckSchema()
CANCEL_JOB_BODY = CancelJobSchema()
DELETED_JOB_ANSWER = DeletedJob()
CHANGE_JOB_BODY = ChangeJobSchema()
PAUSE_JOB_BODY = PauseJobSchema()
RESUME_JOB_BODY = ResumeJobSchema()
RETRY_JOB_BODY = RetryJobSchema()
LIST_JOBS_QUERY = ListJobsQuery()
