"""What a worker does to check data.

Reads what is asked as one JSON object from stdin, and writes each finding to
stdout as a line of JSON as soon as it has it. A process of its own: parsing
holds no other call up, whatever the data do to it stays in it, and it can be
ended at any moment. It ends before its last source where a new process is
better for the rest.
"""

import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from app.coordinator.data.drive import Drive
from app.coordinator.data.unpacking import NoReader
from app.coordinator.data.validation import Finding, examine, in_words
from app.coordinator.identity.access import Access
from app.shortening import shortened


def work() -> int:
    """Answer one question."""
    asked = orjson.loads(sys.stdin.buffer.read())
    drive = Drive(
        Path(asked["drive"]),
        atlas=Path(asked["atlas"]) if asked["atlas"] else None,
        allowed=[Path(path) for path in asked["allowed"]],
    )
    access = Access(asked["tenant_id"])
    for source in asked["sources"]:
        try:
            finding = _finding(drive, access, source)
        except MemoryError:
            _say(
                _bad(
                    source,
                    "it needs more memory than a data check may use;"
                    " split it into files with shorter records",
                )
            )
            # What it has taken may not come back.
            return 0
        _say(finding)
    return 0


def _finding(drive: Drive, access: Access, source: dict[str, Any]) -> Finding:
    try:
        return examine(
            drive,
            access,
            url=source["url"],
            format_name=source["format_name"],
            columns=source["columns"],
            preview=source["preview"],
        )
    except NoReader as error:
        return _bad(source, str(error))
    except MemoryError:
        raise
    except Exception as error:
        # Whatever a parser raises that it does not document is about this source alone.
        traceback.print_exception(error, limit=-20)
        return _bad(source, f"it cannot be parsed ({type(error).__name__}: {error})")


def _bad(source: dict[str, Any], problem: str) -> Finding:
    return Finding(
        accessible=True,
        format=shortened(source["format_name"], 32),
        error_message=in_words(problem),
    )


def _say(finding: Finding) -> None:
    sys.stdout.buffer.write(orjson.dumps(asdict(finding)) + b"\n")
    sys.stdout.buffer.flush()
