"""The level that a line of text says it has, behind whatever it begins with.

Before the level may be: colours (ANSI escapes), the rank that torchrun puts
there, a progress bar that was not ended, a time, and behind a time the
logger's name (`asctime - name - LEVEL`, `asctime | LEVEL | ...`,
`[asctime][name][LEVEL]`). Only the beginning of a line is looked at.
"""

import re
from typing import Final

from generated.mindcoordinator.v1.watch_pb2 import LogLevel

LEVELS: Final = {
    "TRACE": LogLevel.LOG_LEVEL_DEBUG,
    "DEBUG": LogLevel.LOG_LEVEL_DEBUG,
    "INFO": LogLevel.LOG_LEVEL_INFO,
    "SUCCESS": LogLevel.LOG_LEVEL_INFO,
    "NOTICE": LogLevel.LOG_LEVEL_INFO,
    "WARN": LogLevel.LOG_LEVEL_WARNING,
    "WARNING": LogLevel.LOG_LEVEL_WARNING,
    "ERROR": LogLevel.LOG_LEVEL_ERROR,
    "CRITICAL": LogLevel.LOG_LEVEL_ERROR,
    "FATAL": LogLevel.LOG_LEVEL_ERROR,
}
#: Characters of a line that are looked at.
MAX_HEAD: Final = 1024
#: Prefixes before the level, at most.
_PREFIXES: Final = 6
#: What is between a time and the level: the separator and a name, then another separator.
_FIELDS: Final = 3

_NAMES = "|".join(LEVELS)
# `ERROR: x`, `WARNING root x`, `[info] x`, `Warning: x`; not `Error handling is on`.
_LEADING: Final = re.compile(
    rf"\s*(?:({_NAMES})(?=[\s:|\-\]]|$)|\[\s*({_NAMES}|{_NAMES.lower()})\s*\]"
    rf"|({_NAMES.lower()}|{_NAMES.title()})(?=:))"
)
_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
#: `[rank0]:` of torch, `[default0]:` of torchrun.
_RANK: Final = re.compile(r"\[(?:rank|default)?\d{1,7}\]:\s?")
_TIME: Final = re.compile(
    r"\[?(?:\d{4}[-/]\d\d[-/]\d\d[T ]|\d\d/\d\d/\d{4},? )?"
    r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?"
)
#: A bar of tqdm: ` 45%|####5     | 45/100 [00:04<00:05, 10.0it/s]`, `45it [00:04, 10.0it/s]`.
_BAR: Final = re.compile(
    r"[^|]{0,200}?\d{1,3}%\|[^|]{0,400}\|[^\[\]|]{0,100}(?:\[[^\]]{0,200}\])?"
    r"|[^\[|]{0,200}?\d+it \[[^\]]{0,200}\]"
)
#: The beginning of glog's lines, which torch's C++ code writes: `[W1126 20:00:00.123 x.cpp:1]`.
_GLOG: Final = re.compile(r"\[?([IWEF])\d{4} \d\d:\d\d:\d\d\.\d")
_GLOG_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL"}
_SEPARATOR: Final = re.compile(r"\s*\]\s*(?:[-|:]\s*)?\[?\s*|\s*\|\s*|\s+[-:]\s+|^\s*[-:]?\s*\[\s*")
#: Of a line that has a level, but for bars: of most lines it says at once that they have none.
_BEGINNING: Final = re.compile("|".join(each.pattern for each in (_TIME, _RANK, _LEADING, _GLOG)))
#: The same, of a line as it is written.
_INDENTED: Final = re.compile(rf"\s*(?:{_BEGINNING.pattern})")
#: Of a line that has them, the beginning does not say whether it has a level.
_ELSEWHERE: Final = ("\x1b", "%|", "it [")
_WORD: Final = re.compile(rf"({_NAMES})(?=[\s:]|$)")


def without_colours(text: str) -> str:
    """The beginning of a line, without ANSI escapes."""
    head = text[:MAX_HEAD]
    return _ANSI.sub("", head) if "\x1b" in head else head


def split_rank(text: str) -> tuple[str, str]:
    """The rank that a line begins with, as it is there, and what is behind it."""
    match = _RANK.match(text)
    return (match[0], text[match.end() :]) if match else ("", text)


def is_leading(text: str) -> bool:
    """Whether a text begins with the name of a level in capitals."""
    match = _LEADING.match(text)
    return match is not None and bool(match[1])


def may_have_level(text: str) -> re.Pattern[str] | None:
    """A pattern that lines of `text` match which say a level, or else None.

    It is for lines of at most MAX_HEAD characters. Most lines that match say one.
    """
    return None if any(each in text for each in _ELSEWHERE) else _INDENTED


def level_of(text: str) -> LogLevel.ValueType | None:
    """The level of a line; None if it says none."""
    rest = without_colours(text).lstrip()
    if _BEGINNING.match(rest) is None and "%|" not in rest and "it [" not in rest:
        return None
    timed = False
    for _ in range(_PREFIXES):
        rest = rest.lstrip()
        if match := _TIME.match(rest):
            timed = True
        else:
            match = _RANK.match(rest) or _bar(rest)
        if match is None:
            break
        rest = rest[match.end() :]
    if match := _LEADING.match(rest):
        return LEVELS[next(name for name in match.groups() if name).upper()]
    if match := _GLOG.match(rest):
        return LEVELS[_GLOG_LEVELS[match[1]]]
    return _behind_name(rest) if timed else None


def _bar(text: str) -> re.Match[str] | None:
    return _BAR.match(text) if "%|" in text or "it [" in text else None


def _behind_name(text: str) -> LogLevel.ValueType | None:
    """The level in `- name - LEVEL - message` and the like."""
    names = True
    for field in _SEPARATOR.split(text.lstrip(" -|:"), maxsplit=_FIELDS + 1)[: _FIELDS + 1]:
        if field.strip() in LEVELS:
            return LEVELS[field.strip()]
        if names and (match := _WORD.match(field)):
            return LEVELS[match[1]]
        names = names and " " not in field.strip()
    return None
