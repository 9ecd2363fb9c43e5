"""Lines of an agent's own in what a part records, before its end is told."""

import time

from app.coordinator.engines.local.runner.recording import OWN
from app.coordinator.logs.log import LogWriter
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel


def warn_in_log(job: JobDir, text: str, *, node_id: str) -> None:
    """Add a line to the log of a part of which nothing lives. Raises OSError. Blocks shortly."""
    entry = LogEntry(level=LogLevel.LOG_LEVEL_WARNING, message=text, source=OWN, node_id=node_id)
    entry.timestamp.FromNanoseconds(time.time_ns())
    with locked(job.lock, wait=True):
        writer = LogWriter(job.log)
        try:
            writer.append([entry])
        finally:
            writer.close()
