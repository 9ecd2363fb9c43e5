"""Problems are told in one order, whatever the process' hashes are."""

import pytest
from marshmallow import Schema, ValidationError

from app.schemas.fields import Text
from app.schemas.loading import Body, Entry, Query

NAMES = [f"name_{number}" for number in (7, 3, 12, 1, 9, 5, 11, 2, 8, 4, 10, 6)]


def problems(schema: Schema, data: dict[str, object]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        schema.load(data)
    return list(caught.value.messages)


@pytest.mark.parametrize("kind", [Body, Entry, Query])
def test_missing_fields_are_told_as_the_schema_has_them(kind: type[Schema]) -> None:
    made = kind.from_dict({name: Text("Text.", required=True) for name in NAMES})
    assert problems(made(), {}) == NAMES
    assert problems(made(), {NAMES[0]: "a"}) == NAMES[1:]


@pytest.mark.parametrize("kind", [Body, Entry, Query])
def test_unknown_names_are_told_as_they_were_given_behind_what_is_missing(
    kind: type[Schema],
) -> None:
    made = kind.from_dict({"known": Text("Text.", required=True)})
    assert problems(made(), dict.fromkeys(NAMES, 1)) == ["known", *NAMES]
