"""What the core asks of a driver, and what it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

#: Where the API is below a gateway's address.
API: Final = "/v1/modules/scaimind"


@dataclass(frozen=True, slots=True)
class FilePart:
    """`length` bytes of a file, from `offset` on."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is below `root`, and that below the gateway's address.

    `query` has no None; `body` is sent as JSON if it is not None, `content` as it
    is. `timeout` is for each wait: to connect, to send, for more of the answer;
    in seconds. `safe` is a POST that changes nothing, so that it can be repeated.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 30.0
    content: FilePart | bytes | None = None
    root: str = API
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and its body where it was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Send:
    """Make a request and read its answer whole. The driver sends back an `Answer`, or throws
    `ConnectionFailed` in."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Make a request and read the head of its answer, as `Send`; the body of any status but 200
    and 206 is read whole. An open answer is closed first."""

    request: Request


@dataclass(frozen=True, slots=True)
class Receive:
    """Read more of the open answer: bytes, empty at its end. `ConnectionFailed` is thrown in when
    it breaks, or when nothing comes for the request's `timeout`."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NewToken:
    """Get a new token; the driver sends back whether there is one."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand an item to whoever follows."""

    item: Any = field(repr=False)


Command: TypeAlias = Send | Open | Receive | Pause | NewToken | Emit
