"""What the coordinator refuses, and why: messages that a caller may read."""


class Refused(Exception):
    """A request that is answered with an error. The message says what is wrong and what to do."""


class InvalidArgument(Refused):
    """An argument is wrong whatever the state of things. The message begins with the field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")


class FailedPrecondition(Refused):
    """The state of the job, the node or this coordinator does not allow it."""


class NotFound(Refused):
    """There is no such thing, or it is another tenant's: the two are told alike."""


class AlreadyExists(Refused):
    """An idempotency key was used before, for another request."""


class NotImplementedHere(Refused):
    """This coordinator cannot do it."""


class Overloaded(Refused):
    """The coordinator is at a limit of this machine, such as its disk; waiting may help."""


class Unauthenticated(Refused):
    """A forwarded token is missing, or it is not good."""


class PermissionDenied(Refused):
    """A forwarded token is good, but not for this tenant."""


class Unavailable(Refused):
    """Something that the coordinator needs is away; trying again may help."""
