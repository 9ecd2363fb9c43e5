"""Bodies and queries of the data endpoints."""

from typing import Any, ClassVar

from marshmallow import fields

from app.schemas.configs import DataSourceSchema
from app.schemas.fields import Many, Whole
from app.schemas.ids import Id
from app.schemas.loading import Body, Query


class ValidateDataSchema(Body):
    """`POST /data/validate`."""

    EXAMPLE: ClassVar[dict[str, Any] | None] = {
        "data_sources": [{"path": "scaidrive://local/corpus.jsonl"}]
    }

    data_sources = Many(
        "Data sources to check.", fields.Nested(DataSourceSchema), least=1, most=100, required=True
    )
    preview = Whole(
        "Number of records of each source to show, each cut at 4 KiB; 0 shows none.",
        most=5,
        load_default=0,
    )


class DataCacheQuery(Query):
    """`GET /data/cache`."""

    node_id = Id("Empty means the whole cluster.", load_default="")


VALIDATE_DATA_BODY = ValidateDataSchema()
DATA_CACHE_QUERY = DataCacheQuery()
