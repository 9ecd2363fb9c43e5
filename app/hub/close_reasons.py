"""Why a watcher's stream was closed: the catalogue for logs, metrics and documentation."""

from enum import StrEnum


class CloseReason(StrEnum):
    """A reason for which a stream ended."""

    #: The job has ended and the watcher received everything.
    JOB_ENDED = "job_ended"
    #: `follow=false`, and the tail has been sent.
    TAIL_SENT = "tail_sent"
    #: The search is over: `done` was sent.
    SEARCH_DONE = "search_done"
    #: The client closed its connection.
    CLIENT_GONE = "client_gone"
    #: The client accepted no data for the write timeout.
    WRITE_TIMEOUT = "write_timeout"
    #: The token that opened the stream has expired or was revoked.
    AUTH_EXPIRED = "auth_expired"
    #: The upstream failed for good, or for longer than the outage limit.
    UPSTREAM_FAILED = "upstream_failed"
    #: The job was deleted.
    JOB_DELETED = "job_deleted"
    #: This replica is shutting down.
    SHUTDOWN = "shutdown"
    #: The gateway failed; the cause is in the log.
    INTERNAL_ERROR = "internal_error"
