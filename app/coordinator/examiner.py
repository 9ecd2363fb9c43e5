"""The process of a data check: `python -m app.coordinator.examiner`.

Reads what is asked as one JSON object from stdin, and writes one JSON array
of findings to stdout. A process of its own: parsing holds no other call up,
whatever the data do to it stays in it, and it can be ended at any moment.
"""

import ctypes
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from .access import Access
from .drive import Drive
from .formats import NoReader
from .validation import Finding, examine

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10


def main() -> int:
    """Answer one question."""
    asked = orjson.loads(sys.stdin.buffer.read())
    _stay_small(asked["memory_bytes"], asked["parent"])
    drive = Drive(
        Path(asked["drive"]),
        atlas=Path(asked["atlas"]) if asked["atlas"] else None,
        allowed=[Path(path) for path in asked["allowed"]],
    )
    access = Access(asked["tenant_id"])
    findings = [_finding(drive, access, source) for source in asked["sources"]]
    sys.stdout.buffer.write(orjson.dumps([asdict(finding) for finding in findings]))
    return 0


def _finding(drive: Drive, access: Access, source: dict[str, Any]) -> Finding:
    url, format_name = source["url"], source["format_name"]
    try:
        return examine(drive, access, url=url, format_name=format_name, columns=source["columns"])
    except NoReader as error:
        reason = str(error)
    except MemoryError:
        reason = "it needs more memory than a data check may use"
    return Finding(accessible=True, format=format_name, error_message=reason)


def _stay_small(memory_bytes: int, parent: int) -> None:
    """Take no more than that, step back behind the coordinator, and end with it."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    os.nice(_NICE)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
