"""The classes of texts that say something of the coordinator's insides, and not of the request.

A class is a pattern of what only programs, databases and networks say, or one of
which a function decides what a match is: an address, a host, a place in a
source, an exception. All patterns are linear in the text.
"""

import re
from collections.abc import Iterator
from typing import Final

from app.bridge.insides.classes import Class, any_of
from app.bridge.insides.databases import DATABASES
from app.bridge.insides.exceptions import (
    EXCEPTION,
    is_programs_exception,
    is_programs_mistake,
)
from app.bridge.insides.hosts import (
    ADDRESS_V4,
    ADDRESS_V6,
    HOST_NAMED,
    HOST_PORT,
    WEB_URL,
    is_address_v4,
    is_address_v6,
    is_host,
    is_host_and_port,
    is_inner_url,
)
from app.bridge.insides.machines import CLOUDS
from app.bridge.insides.networks import CONNECTIONS
from app.bridge.insides.positions import POSITION, is_position
from app.bridge.insides.programs import MISTAKES, OBJECTS, SQL, TRACEBACKS

#: In every detail that is shown.
CLASSES: Final = (
    TRACEBACKS,
    OBJECTS,
    SQL,
    DATABASES,
    CONNECTIONS,
    CLOUDS,
    Class("exception", EXCEPTION, is_programs_exception),
    Class("mistake", MISTAKES.pattern, is_programs_mistake),
    Class("position", POSITION, is_position, names_thing=True),
    Class("address", ADDRESS_V4, is_address_v4, names_thing=True),
    Class("address", ADDRESS_V6, is_address_v6, names_thing=True),
    Class("host", HOST_PORT, is_host_and_port, names_thing=True),
    Class("host", HOST_NAMED, is_host, names_thing=True),
    Class("host", WEB_URL, is_inner_url, names_thing=True),
)

#: Beside them, where the text is most likely an uncaught exception's.
OF_FAILURES: Final = (
    Class(
        "exception",
        re.compile(r"\b(?P<module>)(?P<name>[A-Z]\w{0,80}(?:Error|Exception))\b"),
        lambda match: is_programs_exception(match, mentioned=True),
    ),
    Class("address", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), is_address_v4),
    any_of("pointer", r"\b0x[0-9a-fA-F]{6,}\b"),
)


def find_insides(text: str, *, from_failure: bool = False) -> Iterator[tuple[Class, re.Match[str]]]:
    """Find what a text has of the insides: each class and match."""
    for each in (*CLASSES, *OF_FAILURES) if from_failure else CLASSES:
        for match in each.pattern.finditer(text):
            if each.is_so is None or each.is_so(match):
                yield each, match
