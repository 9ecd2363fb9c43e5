"""Which lines of a job's log pass: one value for every place where a log is read.

Text is searched by RE2, whose time is linear in the text's length, but not
cheap: a program at the limit takes up to some 100 ms for one long line. Its
lock on the interpreter is released meanwhile.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import re2

#: Characters of `contains` and of `matches`.
MAX_TEXT: Final = 256
#: Bytes of a message, in UTF-8, that are judged: the first.
JUDGED_BYTES: Final = 16 * 1024
#: Instructions of a compiled pattern, and bytes that it may take while it is at work.
MAX_PROGRAM: Final = 2_000
MAX_MEMORY: Final = 8 * 1024 * 1024
#: Spans of a message that are told: the first.
MAX_SPANS: Final = 100
#: Different ranks and sources that one filter names.
MAX_RANKS: Final = 256
MAX_SOURCES: Final = 16
#: What a rank, and a level, is below; levels are the numbers of the contract's LogLevel.
_END_OF_RANKS: Final = 2**31
_END_OF_LEVELS: Final = 5
#: Characters of a source's name.
_MAX_SOURCE: Final = 64
#: Nanoseconds since 1970 are below it: the year 10000.
_END_OF_TIME: Final = 253_402_300_800 * 10**9
#: So many characters have at most JUDGED_BYTES bytes.
_SURELY_JUDGED: Final = JUDGED_BYTES // 4
#: What in a pattern may look at what surrounds a match.
_LOOKS_AROUND: Final = re.compile(r"[\^$]|\\[AzBb]")
#: RE2 stops compiling soon behind MAX_PROGRAM instructions if it has so little memory.
_TRIAL_MEMORY: Final = 512 * 1024


class BadFilter(ValueError):
    """A condition that cannot be; its text says to people what is wrong with it."""

    def __init__(self, field_name: str, problem: str) -> None:
        super().__init__(f"{field_name}: {problem}")
        #: Which condition, as a field of LogFilter.
        self.field = field_name
        #: What is wrong, without the condition's name.
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Conditions that all have to hold. Equal conditions are equal values.

    Making one raises BadFilter, a ValueError.
    """

    #: The least level that passes, as the contract's LogLevel; 0 lets all pass.
    min_level: int = 0
    #: Any of these; empty means all.
    ranks: frozenset[int] = frozenset()
    #: Any of these; empty means all.
    sources: frozenset[str] = frozenset()
    #: Text that the message contains, whatever its case; empty means any.
    contains: str = ""
    #: A regular expression of RE2 that the message matches somewhere; empty means any.
    matches: str = ""
    #: Nanoseconds since 1970: from `since` on, and before `until`; None means any time.
    since: int | None = None
    until: int | None = None
    #: What `contains` and `matches` are compiled to.
    _programs: tuple["_Program", ...] = field(init=False, repr=False, compare=False)
    #: Those of them that hold for a part of a text as for the whole.
    _anywhere: tuple["_Program", ...] = field(init=False, repr=False, compare=False)
    #: What the folding of a message contains that passes; empty unless `contains` is ASCII.
    _folded: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the conditions and compile them, once."""
        _check_numbers(self)
        _check_sources(self.sources)
        programs = []
        if self.contains:
            programs.append(_literal(self.contains))
        if self.matches:
            programs.append(_expression(self.matches))
        object.__setattr__(self, "_programs", tuple(programs))
        anywhere = programs[:-1] if _LOOKS_AROUND.search(self.matches) else programs
        object.__setattr__(self, "_anywhere", tuple(anywhere))
        folded = self.contains.casefold() if self.contains.isascii() else ""
        object.__setattr__(self, "_folded", folded)

    @property
    def passes_all(self) -> bool:
        """Whether there is no condition."""
        return self == _NO_CONDITION

    @property
    def judges_text(self) -> bool:
        """Whether there is a condition for the message."""
        return bool(self._programs)

    def passes(
        self, *, level: int, message: str, source: str, rank: int, timestamp_ns: int
    ) -> bool:
        """Whether an entry passes."""
        if level < self.min_level:
            return False
        if self.ranks and rank not in self.ranks:
            return False
        if self.sources and source not in self.sources:
            return False
        if self.since is not None and timestamp_ns < self.since:
            return False
        if self.until is not None and timestamp_ns >= self.until:
            return False
        return not self._programs or self._text_passes(message)

    def spans(self, message: str) -> list[tuple[int, int]]:
        """Where `contains` or `matches` holds: `(start, end)` in code points, `end` excluded.

        By start; what overlaps is one span, and empty ones are left out. At most MAX_SPANS.
        """
        judged = _judged(message)
        found = sorted(
            span for program in self._programs for span in program.spans(judged, most=MAX_SPANS)
        )
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return _in_code_points(judged, joined[:MAX_SPANS])

    def candidate(self, data: bytes, start: int = 0) -> int:
        """Where in `data`, at `start` or behind it, the first message may lie that passes.

        `data` has whole messages in UTF-8 among other bytes. Every message that
        passes reaches to the place that is returned, or lies behind it; -1 if
        none passes.
        """
        at = start
        for program in self._anywhere:
            found = program.compiled.search(data, start)
            if found is None:
                return -1
            at = max(at, found.start())
        return at

    def _text_passes(self, message: str) -> bool:
        if self._folded and len(message) <= _SURELY_JUDGED:
            # Most lines are turned away here, at a tenth of the cost.
            if self._folded not in message.casefold():
                return False
            if not self.matches and message.isascii():
                return True
        judged = _judged(message)
        return all(program.holds(judged) for program in self._programs)


@dataclass(frozen=True, slots=True)
class _Program:
    """A compiled condition for text in UTF-8."""

    compiled: Any

    def holds(self, text: bytes) -> bool:
        return self.compiled.search(text) is not None

    def spans(self, text: bytes, *, most: int) -> Iterator[tuple[int, int]]:
        """The first `most` matches, in bytes, but for those that are empty."""
        found = self.compiled.finditer(text)
        for match, _ in zip(found, range(most), strict=False):
            start, end = match.span()
            if start < end:
                yield start, end


def options_of_literal() -> Any:
    """How RE2 is to search for `contains`."""
    options = _options()
    options.literal = True
    options.case_sensitive = False
    return options


def options_of_expression() -> Any:
    """How RE2 is to search for `matches`."""
    return _options()


def _options() -> Any:
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    # A pattern is its caller's: none of it belongs on stderr.
    options.log_errors = False
    # No group is asked for, and without them it is faster.
    options.never_capture = True
    return options


def _compile(pattern: str, options: Any) -> Any:
    """Raises re2.error."""
    try:
        return re2.compile(pattern, options)
    finally:
        # The module keeps the last 128 otherwise, each with all its memory.
        re2.purge()


def _literal(text: str) -> _Program:
    _check_text("contains", text)
    return _Program(_compile(text, options_of_literal()))


def _expression(pattern: str) -> _Program:
    _check_text("matches", pattern)
    trial = options_of_expression()
    trial.max_mem = _TRIAL_MEMORY
    try:
        size = _size(_compile(pattern, trial))
        if size <= MAX_PROGRAM:
            return _Program(_compile(pattern, options_of_expression()))
    except re2.error as error:
        reason = _reason(error)
        if "too large" not in reason:
            raise BadFilter(
                "matches", f"is not a regular expression of RE2: {reason}; see RE2's syntax"
            ) from None
    raise BadFilter(
        "matches",
        f"takes too much work: it compiles to over {MAX_PROGRAM:,} instructions; use shorter"
        " repetitions, or fewer classes such as \\pL",
    )


def _size(compiled: Any) -> int:
    """Instructions of the larger of its two programs: it is searched in both directions."""
    forward: int = compiled.programsize
    if forward > MAX_PROGRAM:
        return forward
    backward: int = compiled.reverseprogramsize
    return max(forward, backward)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _judged(message: str) -> bytes:
    """What of a message is judged, in UTF-8; no code point is cut."""
    text = message[:JUDGED_BYTES].encode(errors="replace")
    if len(text) <= JUDGED_BYTES:
        return text
    end = JUDGED_BYTES
    while text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def _in_code_points(text: bytes, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending spans of bytes of UTF-8 as spans of code points."""
    result: list[tuple[int, int]] = []
    at = points = 0
    for start, end in spans:
        begin = points + _points(text[at:start])
        points = begin + _points(text[start:end])
        at = end
        result.append((begin, points))
    return result


def _points(text: bytes) -> int:
    """How many code points begin in a part of a text. One that is cut counts where it begins."""
    return len(text) if text.isascii() else sum(byte & 0xC0 != 0x80 for byte in text)


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise BadFilter(name, f"must have at most {MAX_TEXT} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadFilter(name, "must be Unicode text without surrogates") from None


def _check_numbers(given: LogFilter) -> None:
    if not 0 <= given.min_level < _END_OF_LEVELS:
        raise BadFilter("min_level", f"must be from 0 to {_END_OF_LEVELS - 1}")
    if len(given.ranks) > MAX_RANKS:
        raise BadFilter("ranks", f"must be at most {MAX_RANKS}")
    if not all(0 <= rank < _END_OF_RANKS for rank in given.ranks):
        raise BadFilter("ranks", f"must be from 0 to {_END_OF_RANKS - 1}")
    for name in ("since", "until"):
        time = getattr(given, name)
        if time is not None and not 0 <= time < _END_OF_TIME:
            raise BadFilter(name, "must be a time from 1970 to 9999")


def _check_sources(sources: frozenset[str]) -> None:
    if len(sources) > MAX_SOURCES:
        raise BadFilter("sources", f"must be at most {MAX_SOURCES}")
    if not all(0 < len(source) <= _MAX_SOURCE for source in sources):
        raise BadFilter("sources", f"must be names of 1 to {_MAX_SOURCE} characters")


_NO_CONDITION: Final = LogFilter()
