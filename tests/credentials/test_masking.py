"""Credentials in texts: what is found, what is none, and how long looking for it takes."""

import random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials import MASK, Masker, found_in, masked

WORD = "hunter2-Zebra"

#: How programs, files and people write a value behind a name.
WRITTEN = [
    "password={}",
    "password = {}",
    "password: {}",
    "Password:{}",
    "--password {}",
    "--db-password={}",
    "PGPASSWORD={} psql",
    "export DB_PASSWORD='{}'",
    '{{"password": "{}"}}',
    '{{\\"password\\":\\"{}\\"}}',
    "{{'password': '{}', 'user': 'ann'}}",
    "Settings(password='{}', port=1)",
    "{{Password:{} User:ann}}",
    "?user=ann&password={}&x=1",
    "spring.datasource.password={}",
    "X-Api-Secret: {}",
    "<password>{}</password>",
    "password => {},",
    "os.environ['DB_PASSWORD'] = '{}'",
    "the password is {}",
    "with password {} for ann",
    "password '{}' is wrong",
    "amqp://ann:{}@mq/x",
    "https://{}@example.org/x",
    "ann:{}@tcp(db)/x",
    "Authorization: Bearer {}",
    "authorization: token {}",
    "Cookie: session={}; a=b",
    "curl -u ann:{} https://example.org",
    "mysql -uann -p{} jobs",
    "redis-cli -a {} ping",
    "machine example.org login ann password {}",
    "CREATE USER ann IDENTIFIED BY '{}'",
    "a line\nclient_secret: {}\nanother",
    "['prog', '--password', '{}', '-k']",
    "('password', '{}')",
    "{{'password': ['{}']}}",
    '{{"name": "DB_PASSWORD", "value": "{}"}}',
    "- name: DB_PASSWORD\n  value: {}",
    "{{Name:DB_PASSWORD Value:{}}}",
    "bind('uid=ann', '{}')",
    "docker login -u ann -p {} registry",
    "ldapsearch -D cn=ann -w {} -b dc=x",
    "sqlplus ann/{}@//db/X",
    "db:5432:jobs:ann:{}",
    "AUTH default {}",
    "Password for user ann: {}",
    "password -> {}",
]

#: What speaks of credentials and has none.
NONE = [
    "the token is expired",
    "token: expired",
    "password: it is too short",
    "password must not be empty",
    "secret: must be a string",
    "api_key: is required",
    "Invalid username or password.",
    "pass `token=<your_token>`",
    "password=***",
    "password=None",
    "token=${HF_TOKEN}",
    "PWD=/home/ann",
    "page_token: it is not from a response to this request",
    "tokenizer.pad_token = tokenizer.eos_token",
    "max_tokens=4096, tokens: 5",
    "unexpected token: }",
    "unknown key: learning_rate",
    "sort_key=created_at",
    "KeyError: 'label'",
    "primary key: 5",
    "the bearer of news, a basic transformer, Basic Authentication, bearer authentication",
    "scaidrive://acme/train.jsonl and mail to ann@acme",
    "https://example.org/a@b?to=me@example.org",
    "registry/runner:1.4@sha256:0fa4e50fa4e5",
    "import hf_transfer, hf_hub_download",
    "sk-learn-pipeline-experiment-2024",
    "Meta-Llama-3.1-70B-Instruct-GPTQ-INT4-Calibrated-2024",
    "DistributedDataParallelWithGradientCheckpointing",
    "Qwen2ForCausalLMWithValueHead",
    "0fa4e50fa4e50fa4e50fa4e50fa4e50fa4e50fa4",
    "5f0c8a6e-93b1-4f0e-9a53-0d4f7f1d2c3b",
    "2026-11-26T21:05:35.123456Z",
    "-----BEGIN CERTIFICATE-----",
    "eyJust.a.word",
    "std::token::Kind",
    "there are: 'token', 'key'",
    "token: [CLS], token=[MASK]",
    "AUTH is needed",
    "{'name': 'epochs', 'value': '3'}",
    "the lock of step:10:a:b",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_value_is_masked_however_it_is_written(text: str) -> None:
    shown = masked(text.format(WORD))
    assert WORD not in shown
    assert MASK in shown


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_masked_stays_as_it_is(text: str) -> None:
    shown = masked(text.format(WORD))
    assert masked(shown) == shown


@pytest.mark.parametrize("text", NONE)
def test_what_only_speaks_of_credentials_stays(text: str) -> None:
    assert masked(text) == text


def test_what_stands_around_a_credential_stays() -> None:
    assert masked(f"a=1 password={WORD} b=2") == "a=1 password=*** b=2"
    assert masked(f"postgresql://ann:{WORD}@db/jobs") == "postgresql://ann:***@db/jobs"
    assert masked(f"Password: '{WORD} and more'; x") == "Password: '***'; x"
    assert masked(f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY----- x") == "*** x"


def test_a_private_key_without_an_end_goes_to_the_end() -> None:
    assert masked(f"key -----BEGIN EC PRIVATE KEY-----\n{WORD}\n" * 2) == "key ***"


@pytest.mark.parametrize("size", [24, 40, 64, 128])
def test_a_key_of_any_kind_is_seen_by_its_disorder(size: int) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    drawn = random.Random(size)
    keys = ["".join(drawn.choices(letters, k=size)) for _ in range(200)]
    assert sum(masked(f"refused {key}") == "refused ***" for key in keys) >= 180


def test_a_long_value_is_judged_by_its_beginning() -> None:
    letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    beginning = "".join(random.Random(3).choices(letters, k=128))
    assert masked(f"key={beginning}/{'a' * 300}") == f"key={MASK}"


def test_known_secrets_are_masked_whatever_they_look_like() -> None:
    masker = Masker(("plain words!", "plain words! and more", "short"))
    assert masker("plain words! and more, plain words!, short") == "***, ***, short"
    assert masker.knows("so plain words!")
    assert not masker.knows("short")


@given(st.text(max_size=200))
def test_places_are_in_order_and_within_the_text(text: str) -> None:
    at = 0
    for start, end in found_in(f"password={text}"):
        assert at <= start < end
        at = end
    assert at <= len("password=") + len(text)


#: Texts that make patterns with nested repetitions run for hours.
ADVERSARIAL = [
    *("a", "aB3", "a.", "a-", "a:", "@", "a@", "://", "a://b:", "=", "-", " ", "'", '"', "\\"),
    *(
        "token=",
        "key=",
        'kEy1":',
        "password='",
        'password="\\"',
        "password ",
        "password:\n",
        "authorization: ",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "mysql -p",
        "curl ",
        "curl -u ",
        "redis-cli ",
        "bearer ",
        "basic ",
    ),
    *("<password ", "<password>", "eyJaaaaaa.", "$6$", "ghp_", "sk-", "identified by ", "x:yyy@"),
    *(
        "12345678:AA",
        "aaa1Q~",
        '{"a":"b","token":',
        "login a ",
        "thin:a/",
        "signature=",
        "a" * 63 + ".",
    ),
]


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_no_text_costs_more_than_its_length(piece: str) -> None:
    """Seconds on a core, which other processes do not change: a tenth of the limit is usual, and
    work that grows with the square of the length takes many times of it."""
    text = piece * (64 * 1024 // len(piece))
    began = process_time()
    masked(text)
    assert process_time() - began < 8
