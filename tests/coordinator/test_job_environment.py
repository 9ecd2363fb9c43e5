import json

import pytest

from app.coordinator.errors import InvalidArgument
from app.coordinator.jobs.secrets import Concealer, put_in, take_out, unknown
from app.coordinator.submission.environment import (
    MAX_BYTES,
    MAX_NAME,
    MAX_VARIABLES,
    check_environment,
    own_variables,
)

RESERVED = [
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TMPDIR", "HOME"),
    *("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "SCAIMIND_JOB_ID", "SCAIMIND_ANYTHING"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR"),
    "MASTER_PORT",
]


@pytest.mark.parametrize("name", RESERVED)
def test_what_the_coordinator_sets_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"training_config.environment: '{name}' is set by"):
        check_environment({"A": "1", name: "0"})


@pytest.mark.parametrize("name", RESERVED)
def test_of_a_stored_job_it_is_left_out(name: str) -> None:
    own, left_out = own_variables({"A": "1", name: "0"})
    assert own == {"A": "1"}
    assert list(left_out) == [name]


@pytest.mark.parametrize("name", ["PATH", "CUDA_LAUNCH_BLOCKING", "RANKING", "SCAIMIND", "HOMEDIR"])
def test_what_only_looks_so_is_the_jobs(name: str) -> None:
    check_environment({name: "1"})


def test_what_may_be_said_is_bounded() -> None:
    check_environment({f"V{at}": "" for at in range(MAX_VARIABLES)})
    check_environment({"V": "x" * (MAX_BYTES - 1)})
    check_environment({"V" * MAX_NAME: ""})
    for environment, says in (
        ({f"V{at}": "" for at in range(MAX_VARIABLES + 1)}, "at most 256 variables"),
        ({"V": "x" * MAX_BYTES}, "65537 bytes"),
        ({"V": "é" * (MAX_BYTES // 2)}, "65537 bytes"),
        ({"V" * (MAX_NAME + 1): ""}, "more than 256 characters"),
        ({"a-b": ""}, "is not the name of a variable"),
        ({"": ""}, "is not the name of a variable"),
        ({"V": "a\0b"}, "NUL"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            check_environment(environment)


def test_secrets_are_taken_out_and_put_in_again() -> None:
    environment = {"HF_TOKEN": "hf", "EPOCHS": "3"}
    taken = take_out(environment)
    assert (environment, taken) == ({"HF_TOKEN": "***", "EPOCHS": "3"}, {"HF_TOKEN": "hf"})
    assert take_out(environment) == {}
    assert unknown(environment, {}) == ["HF_TOKEN"]
    assert unknown(environment, taken) == []
    given = {**environment, "HOME": "/"}
    put_in(given, {**taken, "EPOCHS": "4", "OTHER": "5"})
    assert given == {"HF_TOKEN": "hf", "EPOCHS": "3", "HOME": "/"}


def test_what_is_concealed() -> None:
    conceal = Concealer(['quoted"secret', "a-secret\nof-two-lines", "short", "quoted"])
    assert conceal(b'x quoted"secret y') == b"x *** y"
    assert conceal(b'{"a": "quoted\\"secret"}') == b'{"a": "***"}'
    assert conceal(b"a-secret") == conceal(b"of-two-lines") == b"***"
    assert conceal(b"short quoted") == b"short quoted"
    assert Concealer([])(b"anything") == b"anything"
    assert Concealer([])(b"anything", 3) == b"any"


def test_a_printed_environment_shows_no_credential() -> None:
    value = 'it\'s "a" key\\of\tone\nand m\x7fre\nshort\n1\n'
    environment = {"KEY": value, "OTHER": "x"}
    conceal = Concealer([value])
    for written in (repr(environment), str({"KEY": value.encode()}), json.dumps(environment)):
        shown = conceal(written.encode())
        for part in (b"key", b"short", b"re"):
            assert part not in shown
