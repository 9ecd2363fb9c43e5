"""Requests that are answered once: what is tried again, and when."""

import json
import random
from collections.abc import Callable, Generator
from typing import Any, Final

from scaimind.core.commands import Answer, Command, NewToken, Pause, Request, Send
from scaimind.errors import ApiError, ConnectionFailed, of_answer

#: Tries in all.
TRIES: Final = 5
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
#: Statuses after which the same request may succeed.
_PASSING: Final = frozenset({429, 502, 503, 504})


class Backoff:
    """Pauses that double, each with full jitter over its upper half."""

    def __init__(
        self, *, longest: float = _LONGEST_PAUSE, rand: Callable[[], float] = random.random
    ) -> None:
        self._longest = longest
        self._rand = rand
        self._failures = 0

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._failures = 0

    def after_failure(self, *, at_least: float = 0.0) -> float:
        """Return the seconds to wait now."""
        pause = min(_FIRST_PAUSE * float(1 << self._failures), self._longest)
        self._failures = min(self._failures + 1, 16)
        return max(at_least, pause * (0.5 + 0.5 * self._rand()))


def repeatable(request: Request) -> bool:
    """Whether the request does the same when it arrives twice (RFC 9110 9.2.2, or by its key)."""
    return (
        request.safe
        or request.method in ("GET", "HEAD", "PUT", "DELETE")
        or any(name == "Idempotency-Key" for name, _ in request.headers)
    )


def call(request: Request, *, tries: int = TRIES) -> Generator[Command, Any, Any]:
    """Make a request as `exchange` does; return what its answer's JSON holds."""
    return parsed((yield from exchange(request, tries=tries)))


def exchange(request: Request, *, tries: int = TRIES) -> Generator[Command, Any, Answer]:
    """Make a request; return its answer, whose status is 2xx.

    A request that can be repeated is, when there was no answer or one that may
    pass. Any request is, once, after a 401 if there is a new token, and after a
    429, which means that nothing was done. Raises `ApiError`, `ConnectionFailed`.
    """
    backoff = Backoff()
    fresh = False
    for attempt in range(1, tries + 1):
        last = attempt == tries
        try:
            answer: Answer = yield Send(request)
        except ConnectionFailed:
            if last or not repeatable(request):
                raise
            yield Pause(backoff.after_failure())
            continue
        if 200 <= answer.status < 300:
            return answer
        error = refusal(answer)
        if answer.status == 401 and not fresh:
            fresh = True
            if (yield NewToken()):
                continue
        if (
            last
            or answer.status not in _PASSING
            or (answer.status != 429 and not repeatable(request))
        ):
            raise error
        yield Pause(backoff.after_failure(at_least=error.retry_after or 0.0))
    raise AssertionError("unreachable: the last try returns or raises")


def parsed(answer: Answer) -> Any:
    """Return what an answer's JSON holds; None if it holds none."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def refusal(answer: Answer) -> ApiError:
    """Return the exception of an answer that is none."""
    return of_answer(
        answer.status,
        parsed(answer),
        retry_after=retry_after(answer),
        request_id=answer.headers.get("x-request-id", ""),
    )


def retry_after(answer: Answer) -> float | None:
    """Return the seconds of `Retry-After`; None without one, or with a date."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else None
