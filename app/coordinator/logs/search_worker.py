"""What a worker does to search a log.

Reads what is asked as one JSON object from stdin, and writes each message to
stdout behind its length. A process of its own: a scan holds no other call up,
and it can be ended at any moment.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from app.coordinator.logs.log import LogReader
from app.coordinator.logs.search import SearchBounds, search
from app.log_filter import LogFilter

#: Bytes of the length before each message, the most significant first.
LENGTH_BYTES: Final = 4


def question(path: Path, *, condition: LogFilter, before: int, bounds: SearchBounds) -> bytes:
    """What a worker is to read from stdin. `path` is the log's directory."""
    return orjson.dumps(
        {
            "path": str(path),
            "before": before,
            "bounds": asdict(bounds),
            "condition": {
                "min_level": condition.min_level,
                "ranks": list(condition.ranks),
                "sources": list(condition.sources),
                "contains": condition.contains,
                "matches": condition.matches,
                "since": condition.since,
                "until": condition.until,
            },
        }
    )


def work() -> int:
    """Answer one question."""
    asked: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    told: dict[str, Any] = asked["condition"]
    for name in ("ranks", "sources"):
        told[name] = frozenset(told[name])
    out = sys.stdout.buffer
    with LogReader(Path(asked["path"])) as log:
        for message in search(
            log,
            condition=LogFilter(**told),
            before=asked["before"],
            bounds=SearchBounds(**asked["bounds"]),
        ):
            data = message.SerializeToString()
            out.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            out.flush()
    return 0
