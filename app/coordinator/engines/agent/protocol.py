"""The number of what coordinators and agents say to each other.

Agents outlive the coordinator that had them made, and nodes are brought up one by
one: each side tells its number first, and another one is refused at once.
"""

from typing import Final

#: Raise it with each change that the other side would misread or not heed: in the calls of
#: `AgentHost`, in the messages of a connection, in what a run's part has in JSON.
PROTOCOL: Final = 2
#: Of agents and coordinators that tell none.
FIRST: Final = 1
#: A node's, among the versions that it tells of.
VERSION_NAME: Final = "agent protocol"


def told(number: int) -> int:
    """Return which protocol a greeting has."""
    return number or FIRST
