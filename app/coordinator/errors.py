"""What the coordinator refuses, and why: messages that a caller may read."""


class RequestError(Exception):
    """A request that is answered with an error. The message says what is wrong and what to do."""


class InvalidArgument(RequestError):
    """An argument is wrong whatever the state of things. The message begins with the field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")


class FailedPrecondition(RequestError):
    """The state of the job, the node or this coordinator does not allow it."""


class NotFound(RequestError):
    """There is no such thing, or it is another tenant's: the two are told alike."""


class AlreadyExists(RequestError):
    """An idempotency key was used before, for another request."""


class NotImplementedHere(RequestError):
    """This coordinator cannot do it."""


class Overloaded(RequestError):
    """The coordinator is at a limit of this machine, such as its disk; waiting may help."""


class Unauthenticated(RequestError):
    """A forwarded token is missing, or it is not good."""


class PermissionDenied(RequestError):
    """A forwarded token is good, but not for this tenant."""


class Unavailable(RequestError):
    """Something that the coordinator needs is away; trying again may help."""
