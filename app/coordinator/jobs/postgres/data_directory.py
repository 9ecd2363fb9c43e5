"""Which data directory belongs to the jobs of a schema.

Coordinators that share jobs share the directory in which the jobs' files are. One that
leads with another directory would find no run, begin each anew, and count the
lines of its log from 1.
"""

from pathlib import Path
from secrets import token_hex
from typing import Final

from app.coordinator.database.postgres import PostgresDatabase
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.files.json_files import read_json, write_json

_NAME: Final = "coordinator.id.json"
_ID: Final = "id"


def claim(db: PostgresDatabase, directory: Path) -> None:
    """Have a data directory be that of the schema from now on, if none is yet.

    Raises UnusableStore if another one is, or the directory cannot be used.
    """
    path = directory / _NAME
    row = db.execute("SELECT identity FROM data_directory").fetchone()
    try:
        found = read_json(path)
        own = "" if found is None else str(found[_ID])
        if row is None and not own:
            own = token_hex(16)
            write_json(path, {_ID: own})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnusableStore(f"{path} cannot be used: {error}") from None
    if row is None:
        with db.transaction():
            db.write("INSERT INTO data_directory VALUES (true, ?)", (own,))
    elif row["identity"] != own:
        raise UnusableStore(
            f"the jobs in the database belong to another data directory than {directory}; have all"
            " coordinators share the one with their files (data_dir). Where that one is lost, and"
            " this is to take its place, DELETE FROM data_directory in the schema first"
        )
