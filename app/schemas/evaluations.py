"""Bodies and queries of the evaluation endpoints."""

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validates_schema

from app.schemas.configs import PATH_LENGTH
from app.schemas.fields import Many, StringMap, Text, Whole
from app.schemas.ids import Id
from app.schemas.jobs import PageQuery
from app.schemas.loading import Body


class ListEvaluationsQuery(PageQuery):
    """`GET /evaluations`."""


class BenchmarkSchema(Body):
    """One benchmark to run."""

    name = Text("For example perplexity.", most=256, blank=False, required=True)
    dataset = Text("scaidrive://<tenant>/<path>, or the benchmark's own form.", most=PATH_LENGTH)
    num_samples = Whole("0 means all.")
    parameters = StringMap("Additional settings of the benchmark.")


class SubmitEvaluationSchema(Body):
    """`POST /evaluations`."""

    EXAMPLE: ClassVar[dict[str, Any] | None] = {
        "job_id": "job-...",
        "benchmarks": [{"name": "perplexity", "dataset": "scaidrive://local/corpus.jsonl"}],
    }

    job_id = Id("The training job whose model is evaluated.")
    model_uri = Text(
        "Location of the model; empty means the artefacts of job_id.", most=PATH_LENGTH
    )
    checkpoint_id = Id("Checkpoint of job_id to evaluate instead of its final model.")
    benchmarks = Many(
        "Benchmarks to run.", fields.Nested(BenchmarkSchema), least=1, most=100, required=True
    )

    @validates_schema(skip_on_field_errors=False)
    def _has_a_model(self, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("job_id"):
            return
        if not data.get("model_uri"):
            raise ValidationError("At least one of job_id and model_uri is required.", "job_id")
        if data.get("checkpoint_id"):
            raise ValidationError("Required when checkpoint_id is given.", "job_id")


LIST_EVALUATIONS_QUERY = ListEvaluationsQuery()
SUBMIT_EVALUATION_BODY = SubmitEvaluationSchema()
