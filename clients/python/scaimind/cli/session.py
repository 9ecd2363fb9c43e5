"""The client of a command."""

from typing import TYPE_CHECKING

from scaimind.cli.profiles import chosen

if TYPE_CHECKING:
    from scaimind.client import Client

#: Of the newest jobs, so many are looked through for the beginning of an id.
_LOOKED_AT = 1000


def client(profile: str | None) -> "Client":
    """Return a client for the command's profile. Raises CommandError if there is none."""
    # Not sooner: help needs no client.
    from scaimind.client import Client

    found = chosen(profile)
    return Client(found.url, found.api_key, fail_fast=True)


def resolve(made: "Client", job_id: str) -> str:
    """Return the id that an argument means: `-` is the newest job, a unique beginning its job.

    Beginnings are looked for among the newest jobs. Raises `NotFound` with the
    argument if there is no such job, CommandError if there are several.
    """
    from itertools import islice

    from scaimind.cli.main import CommandError
    from scaimind.errors import NotFound

    if job_id == "-":
        for job in made.jobs.list(page_size=1):
            return job.job_id
        raise CommandError("There is no job yet.")
    try:
        return made.jobs.get(job_id).job_id or job_id
    except NotFound as error:
        newest = islice(made.jobs.list(page_size=100), _LOOKED_AT)
        found = [job.job_id for job in newest if job.job_id.startswith(job_id)]
        if not found:
            text = f"{job_id}: {error}"
            raise NotFound(text, code=error.code, status=error.status) from error
    if len(found) > 1:
        raise CommandError(f"{job_id!r} begins several jobs: {', '.join(found[:5])}")
    return found[0]
