"""The client of a command."""

from scaimind.cli.profiles import chosen
from scaimind.client import Client


def client(profile: str | None) -> Client:
    """Return a client for the command's profile. Raises UsageError if there is none."""
    found = chosen(profile)
    return Client(found.url, found.api_key)


def resolve(made: Client, job_id: str) -> str:
    """Return the id that an argument means: `-` is the newest job, a unique beginning its job.

    Beginnings are looked for among the newest 1,000 jobs. An argument that is
    none of them is returned as it is: the gateway knows which jobs exist.
    """
    import click

    from scaimind.errors import NotFound

    if job_id != "-":
        try:
            return made.jobs.get(job_id).job_id or job_id
        except NotFound:
            pass
    found: list[str] = []
    for number, job in enumerate(made.jobs.list(page_size=100)):
        if job_id == "-":
            return job.job_id
        if job.job_id.startswith(job_id):
            found.append(job.job_id)
        if number == 999:
            break
    if len(found) > 1:
        raise click.UsageError(f"{job_id!r} begins several jobs: {', '.join(found[:5])}")
    if job_id == "-":
        raise click.UsageError("There is no job yet.")
    return found[0] if found else job_id
