"""Settings of where the coordinator's state is, and of the lead among several coordinators."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, optional_secret, parsed
from app.configuration.values import parse_address
from app.coordinator.settings.values import parse_lease, parse_schema


@dataclass(frozen=True, kw_only=True)
class StateSettings(Section):
    """State, and more than one coordinator."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    database_dsn: str = optional_secret(
        "libpq connection string or URI of the PostgreSQL that stores the jobs, which several "
        "coordinators can share: one leads, the others stand by. They share data_dir, too. "
        "If not set, the jobs are in SQLite in data_dir, for one coordinator."
    )
    database_schema: str = parsed(
        "scaimind_coordinator",
        "Schema of that database. It is created if it does not exist.",
        parse_schema,
    )
    lease_seconds: float = parsed(
        5.0,
        "Time after which another coordinator takes over from one that no longer answers, "
        "from 2 to 600. A statement may hold the coordinator up for up to 60% of it.",
        parse_lease,
    )
    advertised_address: str = parsed(
        "",
        "Address that a standby names as the leader's, host:port; address if not set.",
        parse_address,
        example="coordinator-0.internal:50051",
    )
