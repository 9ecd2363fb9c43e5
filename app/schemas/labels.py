"""Labels of jobs, as they are changed and searched for."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import ValidationError, validate

from app.schemas.fields import Many, StringMap, Text

MOST: Final = 64
LONGEST_KEY: Final = 128
LONGEST_VALUE: Final = 1024
#: What only the platform sets.
_RESERVED: Final = "type"
_RESERVED_PREFIX: Final = "scaimind/"


def _not_reserved(key: str) -> None:
    if key == _RESERVED or key.startswith(_RESERVED_PREFIX):
        raise ValidationError("Cannot be set: it is the platform's own.")


class LabelChanges(StringMap):
    """A merge patch of labels (RFC 7396): texts to set, null to remove; null for all of them."""

    def __init__(self, text: str) -> None:
        super().__init__(
            text,
            most=MOST,
            longest_key=LONGEST_KEY,
            longest_value=LONGEST_VALUE,
            also=(_not_reserved,),
            nulls=True,
            allow_none=True,
        )


class LabelFilter(Many):
    """Labels in a query string, each as `key=value`; loaded as a mapping."""

    def __init__(self, text: str, **kwargs: Any) -> None:
        item = Text(
            "key=value",
            most=LONGEST_KEY + 1 + LONGEST_VALUE,
            also=(validate.Regexp(r"[^=]+=", error="Must be of the form key=value."),),
        )
        super().__init__(text, item, most=MOST, **kwargs)

    def _deserialize(  # type: ignore[override]  # a mapping is what it stands for
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in super()._deserialize(value, attr, data, **kwargs):
            key, _, wanted = each.partition("=")
            if found.setdefault(key, wanted) != wanted:
                raise ValidationError("A label can have only one value.")
        return found
