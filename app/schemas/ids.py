"""Ids of resources, in bodies and query strings: which exist is the coordinator's affair."""

import re
from typing import Any, Final

from marshmallow import ValidationError

from app.schemas.fields import Text

#: Characters of an id.
MAX_ID: Final = 256
#: What an id may be, in a form that Python and ECMA 262 share.
ID_FORM: Final = rf"[^\x00-\x1f\x7f-\x9f]{{1,{MAX_ID}}}"

#: Beside NUL, which no text may have.
_CONTROL: Final = re.compile(r"[\x01-\x1f\x7f-\x9f]")


class Id(Text):
    """An id: of at most 256 characters, none of them a control character; it may be empty."""

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(text, most=MAX_ID, also=[_printable], **kwargs)
        self.metadata = {**self.metadata, "pattern": rf"^({ID_FORM})?$"}


def _printable(value: str) -> None:
    if _CONTROL.search(value):
        raise ValidationError("Must not contain control characters.")
