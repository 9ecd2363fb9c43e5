"""What lets a file be read: an access, made of a checked token or of a job's grant."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Access:
    """Permission to use one tenant's part of ScaiDrive and ScaiAtlas.

    Made by `tokens.Admission` for a call, and by `Grant.access` for a job.
    """

    tenant_id: str
    #: URLs that may be used, with all below them; None is all of the tenant's.
    only: tuple[str, ...] | None = None

    def covers(self, url: str) -> bool:
        """Whether a URL is among what may be used. Does not look at the tenant."""
        return self.only is None or any(
            url == allowed or url.startswith(allowed.rstrip("/") + "/") for allowed in self.only
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job may use from its submission to its end, however long it waits.

    The tokens of the submission were checked when it was given, and are not
    kept. It never leaves the coordinator, so no caller can make or change one.
    """

    tenant_id: str
    user_id: str
    job_id: str
    #: URLs, with all below them: what the submission names, and the job's own folder.
    urls: tuple[str, ...]

    def access(self, job_id: str) -> Access:
        """The access of the job that it was given to. Raises ValueError for another job."""
        if job_id != self.job_id:
            raise ValueError(f"the grant of {self.job_id} is not for {job_id}")
        return Access(self.tenant_id, self.urls)

    @classmethod
    def give(cls, *, tenant_id: str, user_id: str, job_id: str, urls: Iterable[str]) -> "Grant":
        """A grant for what a submission names; empty URLs are passed over."""
        own = f"scaidrive://{tenant_id}/jobs/{job_id}"
        return cls(tenant_id, user_id, job_id, tuple(dict.fromkeys([own, *filter(None, urls)])))

    @classmethod
    def stored(cls, value: dict[str, Any] | None) -> "Grant | None":
        """What was stored as JSON."""
        return None if value is None else cls(**{**value, "urls": tuple(value["urls"])})
