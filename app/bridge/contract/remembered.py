"""What is made of a message is made once for equal ones, of those that mostly come as before.

Most jobs of a list are what they were when it was last read, and a job that waits or has
ended is what it was when it was last polled.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

R = TypeVar("R")

#: A job that trains is another at each step, and what it was submitted with is not.
_TYPES: Final = frozenset(
    f"mindcoordinator.v1.{name}"
    for name in (
        "Job",
        "TrainingConfig",
        "DataConfig",
        "ResourceConfig",
        "OutputConfig",
        "SchedulingConfig",
        "Checkpoint",
    )
)
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
    kept: dict[bytes, R] = {}

    def call(message: Message) -> R:
        data = message.SerializeToString()
        if data in kept:
            return kept[data]
        made = function(message)
        if len(data) <= _LONGEST:
            if len(kept) >= _MOST:
                del kept[next(iter(kept))]
            kept[data] = made
        return made

    return call
