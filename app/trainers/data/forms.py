"""The forms of records that training types learn from, and what is wrong with a record."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from ..errors import TrainingRefused, did_you_mean, listed

_ROLES: Final = ("system", "user", "assistant", "tool", "developer")


class Form(Enum):
    """A form of records, by its columns."""

    TEXT = ("text",)
    MESSAGES = ("messages",)
    PROMPT_COMPLETION = ("prompt", "completion")
    PREFERENCE = ("prompt", "chosen", "rejected")
    #: Preferences whose texts have the prompt in them.
    IMPLICIT_PREFERENCE = ("chosen", "rejected")
    #: What is answered by the model itself, and rewarded.
    PROMPT = ("prompt",)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every record has."""
        columns: tuple[str, ...] = self.value
        return columns

    @property
    def shown(self) -> str:
        """The form as a message names it."""
        return " + ".join(self.columns)


def recognise(columns: Iterable[str], forms: tuple[Form, ...], *, where: str, wanted: str) -> Form:
    """Return the form that the columns have: of those that fit, the one with the most columns.

    `wanted` names the training type. Raises TrainingRefused, which says what to map.
    """
    there = [*columns]
    fitting = [form for form in forms if set(form.columns) <= set(there)]
    if fitting:
        return max(fitting, key=lambda form: len(form.columns))
    known = {column for form in forms for column in form.columns}
    other = next((form for form in Form if set(form.columns) <= set(there)), None)
    hints = [
        hint
        for column in there
        if column not in known and (hint := did_you_mean(column, known - set(there)))
    ]
    said = (
        f"{where}: it has the columns {listed(there)}; {wanted} needs"
        f" {', or '.join(form.shown for form in forms)}"
    )
    if other is not None:
        said += f". Records of the form {other.shown} are not for {wanted}"
    elif mapping := _usual_mapping(there, known):
        said += f". Set preprocess.field_mapping to {mapping}"
    elif hints:
        said += f"{hints[0]} Columns are renamed by preprocess.field_mapping"
    else:
        said += ". Rename columns by preprocess.field_mapping"
    raise TrainingRefused(said)


#: What data sets from elsewhere often call the columns.
_USUAL: Final[tuple[Mapping[str, str], ...]] = (
    {"instruction": "prompt", "output": "completion"},
    {"instruction": "prompt", "response": "completion"},
    {"question": "prompt", "answer": "completion"},
    {"prompt": "prompt", "response": "completion"},
    {"input": "prompt", "output": "completion"},
    {"content": "text"},
    {"document": "text"},
    {"body": "text"},
    {"conversation": "messages"},
)


def _usual_mapping(there: list[str], known: set[str]) -> str:
    for mapping in _USUAL:
        if set(mapping) <= set(there) and set(mapping.values()) <= known:
            renamed = {old: new for old, new in mapping.items() if old != new}
            return str(renamed).replace("'", '"')
    return ""


class BadRecord(Exception):
    """What is wrong with a record."""


def check_record(record: Mapping[str, Any], form: Form) -> str:
    """Return what the columns of the form have: `texts`, or `messages`. Raises BadRecord."""
    kinds = {}
    for column in form.columns:
        value = record[column]
        if column == "messages":
            _check_messages(value, column)
        elif isinstance(value, str):
            kinds[column] = "text"
            if not value.strip() and column in ("text", "prompt"):
                raise BadRecord(f"{column} is empty")
        elif isinstance(value, list):
            kinds[column] = "messages"
            _check_messages(value, column)
        else:
            raise BadRecord(f"{column} is {_kind(value)}, and neither a text nor messages")
    if form is Form.TEXT and kinds["text"] != "text":
        raise BadRecord("text is a list, not a text")
    if len(set(kinds.values())) > 1:
        raise BadRecord(f"{' and '.join(kinds)} have to be all texts or all messages")
    return "texts" if "text" in kinds.values() else "messages"


def _check_messages(value: object, column: str) -> None:
    if not isinstance(value, list) or not value:
        raise BadRecord(f"{column} is {_kind(value)}, not a list of messages")
    for at, message in enumerate(value):
        if not isinstance(message, dict):
            raise BadRecord(f"{column}[{at}] is {_kind(message)}, not a message")
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise BadRecord(f"{column}[{at}].role is {role!r}; use one of {', '.join(_ROLES)}")
        if not isinstance(content, str) and not message.get("tool_calls"):
            raise BadRecord(f"{column}[{at}].content is {_kind(content)}, not a text")


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    if value in ([], ""):
        return "empty"
    return {"int": "a number", "float": "a number", "dict": "an object", "list": "a list"}.get(
        type(value).__name__, "a text"
    )
