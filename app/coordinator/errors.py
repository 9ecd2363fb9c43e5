"""What the coordinator refuses, and why: messages that a caller may read."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.shortening import quoted
from app.suggestions import did_you_mean


class RequestError(Exception):
    """A request that is answered with an error. The message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field; `field` is its path, such as `data_config.sources.0.path`."""

    field: str
    message: str

    @property
    def text(self) -> str:
        """The field and what is wrong with it."""
        return f"{self.field}: {self.message}"


class InvalidArgument(RequestError):
    """Arguments are wrong whatever the state of things. The message begins with the field."""

    def __init__(self, field: str, message: str) -> None:
        self.problems: Sequence[FieldProblem] = (FieldProblem(field, message),)
        super().__init__(self.problems[0].text)

    @classmethod
    def of(cls, problems: Sequence[FieldProblem]) -> "InvalidArgument":
        """The error that tells several problems, of which there is at least one."""
        error = cls(problems[0].field, problems[0].message)
        error.problems = tuple(problems)
        error.args = ("; ".join(problem.text for problem in problems),)
        return error


class FailedPrecondition(RequestError):
    """The state of the job, the node or this coordinator does not allow it.

    Where a field of the request is the reason, the message begins with its path.
    """


class Problems:
    """What is wrong with a request, collected so that its caller reads all of it at once."""

    def __init__(self) -> None:
        self._invalid: list[FieldProblem] = []
        self._not_possible: list[str] = []

    def add(self, field: str, message: str) -> None:
        """Note that a field is wrong."""
        self._invalid.append(FieldProblem(field, message))

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note what a check raises; checks that need its outcome belong to the same one."""
        try:
            yield
        except InvalidArgument as error:
            self._invalid += error.problems
        except FailedPrecondition as error:
            self._not_possible.append(str(error))

    def check(self) -> None:
        """Raise InvalidArgument with all that is wrong; if nothing is, FailedPrecondition with
        all that is not possible."""
        if self._invalid:
            raise InvalidArgument.of(self._invalid)
        if self._not_possible:
            raise FailedPrecondition("; ".join(self._not_possible))


def not_known(given: str, known: Iterable[str]) -> str:
    """What is wrong with a name that is none of those that there are."""
    names = list(known)
    meant = did_you_mean(given, names)
    return f"{quoted(given)} is not known; there are: {', '.join(names)}" + (
        f"; {meant}" if meant else ""
    )


@contextmanager
def all_problems() -> Iterator[Problems]:
    """Collect problems within, and raise them at the end."""
    problems = Problems()
    yield problems
    problems.check()


class NotFound(RequestError):
    """There is no such thing, or it is another tenant's: the two are told alike."""


class Aborted(RequestError):
    """What the request is about has changed meanwhile: it was decided on an older version."""


class AlreadyExists(RequestError):
    """An idempotency key was used before, for another request."""


class NotImplementedHere(RequestError):
    """This coordinator cannot do it."""


class Overloaded(RequestError):
    """The coordinator is at a limit of this machine, such as its disk; waiting may help."""


class Unauthenticated(RequestError):
    """A forwarded token is missing, or it is not good.

    `reason` is one of the contract's (errors.proto, ErrorInfo), or empty.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class PermissionDenied(RequestError):
    """A forwarded token is good, but not for this tenant."""


class Unavailable(RequestError):
    """Something that the coordinator needs is away; trying again may help."""
