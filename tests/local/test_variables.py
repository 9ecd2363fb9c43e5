"""What of the environment each program of the stack is given."""

from app.local.variables import PROGRAMS, given_to, variables_of

ALL = {
    "PATH": "/usr/bin",
    "SCAIMIND_COORDINATOR_API_SECRET": "shared",
    "SCAIMIND_COORDINATOR_STOP_GRACE": "5",
    "SCAIMIND_DATABASE_DSN": "postgresql://database",
    "SCAIMIND_DATA_DIR": "/srv",
    "SCAIMIND_HUB_LINGER": "5",
    "SCAIMIND_ISSUER_CLIENT_SECRET_FILE": "/srv/issuer-secret",
    "SCAIMIND_LOG_LEVEL": "debug",
    "SCAIMIND_POTR": "8080",
}
#: The path, the data directory, what all log, and what nobody knows.
EVERYBODYS = {"PATH", "SCAIMIND_DATA_DIR", "SCAIMIND_LOG_LEVEL", "SCAIMIND_POTR"}


def test_each_program_is_given_what_it_reads_and_what_no_program_does() -> None:
    given = {program: given_to(program, ALL).keys() - EVERYBODYS for program in PROGRAMS}
    assert given == {
        # By its former name, the secret is also one of the gateway's variables.
        "gateway": {
            "SCAIMIND_COORDINATOR_API_SECRET",
            "SCAIMIND_DATABASE_DSN",
            "SCAIMIND_HUB_LINGER",
        },
        "coordinator": {"SCAIMIND_COORDINATOR_API_SECRET", "SCAIMIND_COORDINATOR_STOP_GRACE"},
        "issuer": {"SCAIMIND_DATABASE_DSN", "SCAIMIND_ISSUER_CLIENT_SECRET_FILE"},
    }
    assert all(given_to(program, ALL).keys() >= EVERYBODYS for program in PROGRAMS)


def test_nothing_that_a_program_reads_is_kept_from_it() -> None:
    everything = dict.fromkeys(frozenset[str]().union(*map(variables_of, PROGRAMS)), "x")
    for program in PROGRAMS:
        assert given_to(program, everything).keys() == variables_of(program)
