"""What of a coordinator's text a caller may read, and what of it is logged.

A detail that is meant for people passes as it is. One that says something of
the coordinator's insides does not pass at all, since nobody can tell where in
it the secrets are. What the caller sent in this very request is never hidden
from it, credentials apart; those are in no answer and in no log line.
"""

import re
from collections.abc import Iterable
from typing import Final

from app.bridge.insides import find_insides
from app.bridge.sent import Sent, Span
from app.credentials import Masker, found_in
from app.shortening import CUT, shortened

#: Characters that a caller is shown.
MAX_SHOWN: Final = 1000
#: Characters that are searched and logged. What is longer is a dump, not a sentence.
MAX_SEARCHED: Final = 8 * 1024
#: Characters behind them in which a credential may go on that begins within them.
_BEYOND: Final = 4 * 1024

#: A tenant's own files, which it may read about by any name and line.
_TENANT_URL: Final = re.compile(r"\bscai(?:drive|atlas)://[^\s'\"<>]*")
#: Addresses of the web, whose paths are no files of this machine.
_WEB_URL: Final = re.compile(r"\bhttps?://[^\s'\"<>]*")

#: The directories of an absolute path, with at least one of them; neither a
#: URL nor the like of "and/or".
_DIRECTORIES: Final = re.compile(
    r"(?<![\w/.~-])/(?:[\w.+@~-]{1,255}+/){1,64}+"
    r"|\b[A-Za-z]:\\(?:[^\s\\/:*?\"<>|]{1,255}+\\){0,64}+"
    r"|(?<![\w\\])\\\\(?:[^\s\\/:*?\"<>|]{1,255}+\\){1,64}+"
    r"|\bfile://\S{0,4096}/"
)
#: The API's own paths, and those that every job and every machine has.
_PUBLIC: Final = re.compile(
    r"/(?:v1|jobs|cluster|queue|evaluations|data|monitoring|health|dev|proc|sys|workspace|usr/local/cuda"
    r"[\w.-]*|usr/bin|bin|pytorch)/"
)
#: What an absolute path that the caller did not give becomes.
_CUT_PATH: Final = ".../"
_PATH_END: Final = re.compile(r"[\w.+@~%-]*")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

NOTHING_SENT: Final = Sent()
_NOTHING_KNOWN: Final = Masker()


def presentable(
    detail: str,
    *,
    from_failure: bool = False,
    sent: Sent = NOTHING_SENT,
    masker: Masker = _NOTHING_KNOWN,
) -> str | None:
    """Return what a caller may read of `detail`; None if nothing.

    An honest text comes back unchanged up to `MAX_SHOWN` characters; what is
    cut ends in CUT. Of an absolute path that the caller did not send only the
    file's name stays. `from_failure` says that the text comes from something
    that broke, and is looked at more strictly. `masker` knows the credentials
    of this call.
    """
    if not detail.strip() or len(detail) > MAX_SEARCHED:
        return None
    own = sent.spans(detail)
    if not _all_within(found_in(detail), own):
        return None
    masked = masker(detail)
    if masked != detail:
        if masker.knows(detail):
            return None
        own = sent.spans(masked)
    searched = _TENANT_URL.sub(_blank, masked)
    for kind, match in find_insides(searched, from_failure=from_failure):
        if not _is_own(match.span(), own) and not (
            kind.names_thing and sent.has_part(match[0].strip("'\"`([{<>}])"))
        ):
            return None
    pathless = _WEB_URL.sub(_blank, searched)
    hidden = [
        match.span()
        for match in _DIRECTORIES.finditer(pathless)
        if not _is_public(match, own, sent)
    ]
    if hidden and from_failure:
        return None
    for start, end in reversed(hidden):
        masked = masked[:start] + _CUT_PATH + masked[end:]
    return shortened(_CONTROL.sub(" ", masked), MAX_SHOWN)


def loggable(detail: str, *, masker: Masker = _NOTHING_KNOWN) -> str:
    """Return the raw detail for the log, without credentials and bounded.

    What is cut ends in CUT.
    """
    masked = masker(detail[: MAX_SEARCHED + _BEYOND])
    if len(detail) > MAX_SEARCHED + _BEYOND:
        return masked[:MAX_SEARCHED] + CUT
    return shortened(masked, MAX_SEARCHED)


def _blank(match: re.Match[str]) -> str:
    """Spaces in place of a match, so that places stay what they are."""
    return " " * len(match[0])


def _is_own(span: Span, own: Iterable[Span]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in own)


def _all_within(spans: Iterable[Span], own: Iterable[Span]) -> bool:
    return all(_is_own(span, own) for span in spans)


def _is_public(match: re.Match[str], own: Iterable[Span], sent: Sent) -> bool:
    """Whether a path may be shown: it is the caller's, or everybody's."""
    if _PUBLIC.match(match[0]) or _is_own(match.span(), own):
        return True
    name = _PATH_END.match(match.string, match.end())
    return sent.has_part(match[0] + (name[0] if name else ""))
