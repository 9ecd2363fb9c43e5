"""Settings of PostgreSQL for tests."""

from app.database.settings import DatabaseSettings


def patient(dsn: str, **others: float) -> DatabaseSettings:
    """A minute to connect and for a statement, whatever else the machine does.

    Where a time-out is under test, it is given.
    """
    given = {"connect_timeout": 60.0, "statement_timeout": 60.0, **others}
    return DatabaseSettings(dsn=dsn, **given)  # type: ignore[arg-type]  # numbers all of them
