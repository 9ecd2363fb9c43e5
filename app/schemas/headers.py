"""Request headers that endpoints read for themselves."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from app.schemas.fields import Text, messages
from app.schemas.loading import Headers


class IdempotencyKey(fields.String):
    """A key of 1 to 255 characters (draft-ietf-httpapi-idempotency-key-header).

    The draft has a string in quotes (RFC 8941, 3.3.3); most clients send it
    bare. Either is loaded as what it stands for.
    """

    default_error_messages = messages(
        invalid="Must be 1 to 255 printable ASCII characters, in double quotes if it contains "
        "spaces or quotes."
    )

    #: What a bare key may be; what the document says of both forms.
    BARE = r"[!#-~]{1,255}"
    FORM = rf'^({BARE}|"([ !#-\[\]-~]|\\["\\]){{1,255}}")$'

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(metadata={"description": text, "pattern": self.FORM}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.FORM, value):
            raise self.make_error("invalid", input=value)
        return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


class SubmitHeaders(Headers):
    """`POST /jobs` and `POST /evaluations`."""

    idempotency_key = IdempotencyKey(
        "Key chosen by the client for a submission. The same key and body within 24 hours "
        "return the result of the first request; a different body is rejected with 409. Keys "
        "belong to the user.",
        data_key="Idempotency-Key",
        # Called, since an empty key is nothing that could be sent.
        load_default=str,
    )


class StreamHeaders(Headers):
    """Of both streams."""

    last_event_id = Text(
        "Id of the last event that the client received; the stream continues after it.",
        most=256,
        data_key="Last-Event-ID",
        load_default="",
    )


class EntityTags(Text):
    """Entity tags, or `*` (RFC 9110, 13.1); whoever compares them reads them."""

    #: The header may be given more than once (RFC 9110, 5.3).
    LIST = True


class RetryHeaders(Headers):
    """`POST /jobs/{job_id}/retry`."""

    idempotency_key = IdempotencyKey(
        "Key chosen by the client for a retry. The same key, job and body within 24 hours return "
        "the child that the first request made; otherwise it is rejected with 409. Keys belong "
        "to the user, and those of retries are apart from those of submissions.",
        data_key="Idempotency-Key",
        load_default=str,
    )


class ChangeJobHeaders(Headers):
    """`PATCH /jobs/{job_id}`."""

    if_match = EntityTags(
        "The ETag of the job as the client knows it; 412 if it has changed since.",
        data_key="If-Match",
        load_default="",
    )


RETRY_HEADERS = RetryHeaders()
CHANGE_JOB_HEADERS = ChangeJobHeaders()
SUBMIT_HEADERS = SubmitHeaders()
STREAM_HEADERS = StreamHeaders()
