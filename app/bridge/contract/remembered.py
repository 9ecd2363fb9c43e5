"""What is made of a message is made once for equal ones, of those that mostly come as before.

Most jobs of a list are what they were when it was last read, and a job that waits or has
ended is what it was when it was last polled.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

R = TypeVar("R")

_TYPES: Final = frozenset({"mindcoordinator.v1.Job"})
#: Bytes of a message that is remembered, and how many are by each function.
_LONGEST: Final = 4 * 1024
_MOST: Final = 512


def remembered(function: Callable[[Message], R], descriptor: Descriptor) -> Callable[[Message], R]:
    """Return a function of messages of a type that may return what it has returned before.

    `function` depends on the message alone; what it returns is shared, and changed by
    nobody. What it raises is not remembered.
    """
    if descriptor.full_name not in _TYPES:
        return function
    parse = GetMessageClass(descriptor).FromString

    @lru_cache(maxsize=_MOST)
    def of(data: bytes) -> R:
        return function(parse(data))

    def call(message: Message) -> R:
        data = message.SerializeToString()
        return function(message) if len(data) > _LONGEST else of(data)

    return call
