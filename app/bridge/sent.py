"""What the caller sent in a request, which an answer to it may repeat.

An answer hides nothing that the caller wrote itself. Only what is the caller's
as a whole counts: a match within a value that the text repeats, or, of a thing
such as a path, one that is a part of a value or lies below it. Pieces that a
caller puts together do not open what stands between them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from google.protobuf.message import Message

from app.credentials import Masker, is_credential

Span: TypeAlias = tuple[int, int]

#: Values of a request that are looked at, and the least characters of one.
_MAX_VALUES: Final = 2_000
_LEAST: Final = 3
#: Characters after which a coordinator cuts what it repeats.
_CUTS: Final = (64, 100, 128, 256, 512)
#: Comparisons of the texts of one answer with values, whatever a caller sends: some 50 ms.
_MAX_LOOKUPS: Final = 100_000
#: Least characters of a thing that may be a part of a value.
_LEAST_PART: Final = 5


class Sent:
    """The texts of one request."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        distinct: dict[str, None] = {}
        for value in values:
            if len(distinct) == _MAX_VALUES:
                break
            if len(value) >= _LEAST:
                distinct[value] = None
        self._values = tuple(distinct)
        #: What a text may repeat, by its first characters; made when first needed.
        self._forms: dict[str, _Group] | None = None
        self._lookups = _MAX_LOOKUPS

    @classmethod
    def of(cls, request: Message | None) -> "Sent":
        """The texts of a call's request, at every depth."""
        return cls(() if request is None else _texts(request))

    def spans(self, text: str) -> list[Span]:
        """Where a text repeats a value, as it is, as Python quotes it, or its beginning.

        The time is bounded over all texts: what is not found until then is not the caller's.
        """
        if self._forms is None:
            self._forms = _grouped(self._values)
        found: list[Span] = []
        for at in range(len(text) - _LEAST + 1):
            group = self._forms.get(text[at : at + _LEAST])
            if group is None:
                continue
            for length in reversed(group.lengths[: bisect_right(group.lengths, len(text) - at)]):
                if not self._lookups:
                    return found
                self._lookups -= 1
                if text[at : at + length] in group.forms:
                    found.append((at, at + length))
                    break
        return found

    def has_part(self, thing: str) -> bool:
        """Whether a thing, such as a path, is a part of a value, or lies below one."""
        if len(thing) < _LEAST_PART:
            return False
        below = thing.rstrip("/")
        return any(
            thing in value or (value.startswith("/") and below.startswith(value.rstrip("/") + "/"))
            for value in self._values
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asked for, and the credentials that went with it."""

    request: Message | None = None
    secrets: Sequence[str] = field(default=(), repr=False)

    def sent(self) -> Sent:
        """What the caller may read again."""
        return Sent.of(self.request)

    def masker(self) -> Masker:
        """Knows every credential of the call, those of the job's variables included."""
        return Masker((*self.secrets, *_secrets_of(self.request)))


NOTHING_ASKED: Final = Asked()


@dataclass(frozen=True, slots=True)
class _Group:
    """Forms of values that begin alike."""

    forms: frozenset[str]
    #: The shortest first.
    lengths: Sequence[int]


def _grouped(values: Iterable[str]) -> dict[str, _Group]:
    groups: dict[str, set[str]] = {}
    for value in values:
        for form in _forms(value):
            groups.setdefault(form[:_LEAST], set()).add(form)
    return {
        beginning: _Group(frozenset(forms), sorted({len(form) for form in forms}))
        for beginning, forms in groups.items()
    }


def _forms(value: str) -> Iterator[str]:
    for form in (value, repr(value)[1:-1]):
        yield form
        yield from (form[:cut] for cut in _CUTS if cut < len(form))


def _secrets_of(request: Message | None) -> Iterator[str]:
    if request is None:
        return
    for about, value in request.ListFields():
        inner = about.message_type
        if inner is not None and inner.GetOptions().map_entry:
            for name, item in value.items():
                if isinstance(item, Message):
                    yield from _secrets_of(item)
                elif isinstance(item, str) and is_credential(name, item):
                    yield item
        elif inner is not None:
            for each in value if about.is_repeated else (value,):
                yield from _secrets_of(each)


def _texts(message: Message) -> Iterator[str]:
    for about, value in message.ListFields():
        inner = about.message_type
        if inner is not None and inner.GetOptions().map_entry:
            for key, item in value.items():
                yield from (str(each) for each in (key, item) if isinstance(each, str))
                if isinstance(item, Message):
                    yield from _texts(item)
        elif inner is not None:
            for each in value if about.is_repeated else (value,):
                yield from _texts(each)
        elif about.type == about.TYPE_STRING:
            yield from value if about.is_repeated else (value,)
