from time import process_time

import pytest

from app.bridge.sanitise import MAX_SEARCHED, MAX_SHOWN, loggable, presentable
from app.bridge.sent import Asked, Sent
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

NOISE = {
    "python": 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nKeyError: 1',
    "python frame": 'failed at File "store.py", line 12',
    "python grpc": "Unexpected <class 'KeyError'>: 'job_1'",
    "python grpc sync": "Exception calling application: no such key",
    "python qualified": "psycopg2.errors.UndefinedTable: oops",
    "java": "java.lang.NullPointerException: x\n\tat com.acme.Store.get(Store.java:12)",
    "java native": "failed\n  at sun.misc.Unsafe.park(Native Method)",
    "java cause": "Caused by: com.acme.StoreException: closed",
    "java more": "oops\n\t... 23 more",
    "java thread": 'Exception in thread "main" oops',
    "go": "goroutine 17 [running]:\nmain.run(0x1)",
    "go panic": "panic: runtime error: index out of range [3] with length 3",
    "go runtime": "runtime error: invalid memory address or nil pointer dereference",
    "go file": "open failed at store.go:17",
    "rust": "thread 'main' panicked at src/main.rs:10:5:\nboom",
    "rust new": "thread 'tokio-worker' (12) panicked at 'boom'",
    "rust hint": "note: run with `RUST_BACKTRACE=1` environment variable",
    "rust backtrace": "boom\nstack backtrace:\n   0: std::panicking",
    "rust unwrap": "called `Option::unwrap()` on a `None` value",
    "c++": "terminate called after throwing an instance of 'std::bad_alloc'",
    "gdb": "#0  0x00007f in main ()",
    "node": "oops\n    at Object.run (/app/index.js:3:14)",
    "dotnet": "   at Acme.Store.Get(String id) in C:\\src\\Store.cs:line 12",
    "source line": "failed in coordinator/store.py:88",
    "source line word": "failed in scheduler.rs, line 12",
    "select": "error in SELECT id, name FROM jobs",
    "select star": "while running select * from jobs",
    "select where": "select id from jobs where tenant_id = 'acme'",
    "select columns": "select id, name from jobs order by id",
    "insert": "INSERT INTO jobs (id) VALUES (1) failed",
    "insert lower": "insert into jobs(id) values (1)",
    "update": "UPDATE jobs SET status = 3",
    "update lower": "update jobs set status = 3",
    "delete": "delete from jobs where id = 3",
    "create": "CREATE TABLE jobs (id int)",
    "sqlalchemy": "oops [SQL: something]",
    "postgres relation": 'relation "jobs" does not exist',
    "postgres unique": 'duplicate key value violates unique constraint "jobs_pkey"',
    "postgres syntax": 'syntax error at or near "FORM"',
    "sqlite": "no such table: jobs",
    "sqlite unique": "UNIQUE constraint failed: jobs.id",
    "sqlite syntax": 'near "FORM": syntax error',
    "oracle": "ORA-00942 table or view",
    "dsn": "cannot connect to postgresql://db.internal/jobs",
    "dsn password": "cannot connect to custom://user:hunter2@db.internal",
    "jdbc": "jdbc:oracle:thin:@db:1521",
    "redis": "redis://cache:6379/0 refused",
    "libpq": "host=db.internal port=5432 dbname=jobs refused",
    "password": "login with password=hunter2 failed",
    "ado": "Server=db;Database=jobs;Uid=sa",
    "bearer": "sent Authorization: Bearer abc",
    "api key": "unknown key sgk_0123456789abcdef",
    "jwt": "bad token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln",
    "pem": "-----BEGIN PRIVATE KEY-----\nMII",
}

HONEST = [
    "job j1 is COMPLETED and cannot be paused",
    "select a data set from the list",
    "select one of sft, dpo from the types that exist",
    "Select a queue from default, batch; update the job and set a priority",
    "the update is set from the panel",
    "delete from the cache is not possible while job j1 uses it",
    "insert into an empty queue is fine",
    "line 17: not valid JSON",
    "scaidrive://acme/sets/train.jsonl, line 17: not valid JSON",
    "scaidrive://acme/scripts/train.py:17 is not a script",
    "scaiatlas://acme/llama-3/v1 has no revision 'main'",
    "gpu_count: 12 is more than the 8 GPUs of queue default",
    "benchmark 'mmlu' is not known; known are: exact_match, perplexity, accuracy",
    "no node has 4x A100-80GB (node pool a/b, 2026/01/02)",
    "custom_script_path: train.py does not exist",
    "the run failed: ValueError in your script",
    "ask POST /v1/modules/scaimind/jobs for another",
    "waited at node n1 (rack 7) for 30 s; a server and a database are needed",
    "Größe ist ungültig: 3 ≤ 5",
    "two lines\n\tare fine",
    "application/json and/or text",
    "the host is down",
]

FROM_FAILURE = [
    "KeyError: 'job_1'",
    "failed to connect to 10.0.0.7:5432",
    "ipv4:127.0.0.1:50051: connection refused",
    "Received RST_STREAM with error code 2",
    "'NoneType' has no attribute x",
    "cannot write /var/lib/coordinator/state.db",
    "<Store object at 0x7f33aa>",
]


@pytest.mark.parametrize("detail", NOISE.values(), ids=NOISE)
def test_insides_do_not_pass(detail: str) -> None:
    assert presentable(detail) is None
    assert presentable(f"job j1 cannot start: {detail}\n") is None
    assert presentable(f"job j1 cannot start:\n{detail}", from_failure=True) is None


@pytest.mark.parametrize("detail", HONEST)
def test_an_honest_text_passes_unchanged(detail: str) -> None:
    assert presentable(detail) == detail


@pytest.mark.parametrize("detail", [HONEST[0], HONEST[3], HONEST[7], HONEST[8]])
def test_also_where_something_broke(detail: str) -> None:
    assert presentable(detail, from_failure=True) == detail


@pytest.mark.parametrize("detail", FROM_FAILURE)
def test_what_broke_is_looked_at_more_strictly(detail: str) -> None:
    assert presentable(detail, from_failure=True) is None


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("/srv/drive/acme/a.jsonl, line 3: empty", ".../a.jsonl, line 3: empty"),
        ("cannot read '/var/lib/x/y.db'", "cannot read '.../y.db'"),
        ("denied:/home/c/state", "denied:.../state"),
        ("(see file:///opt/c/readme)", "(see .../readme)"),
        (r"no file C:\coordinator\state.db", "no file .../state.db"),
        (r"no file \\nas\share\state.db", "no file .../state.db"),
    ],
)
def test_of_an_absolute_path_the_name_stays(detail: str, shown: str) -> None:
    assert presentable(detail) == shown


def test_control_characters_become_spaces() -> None:
    assert presentable("a\x00b\x1b[31mc\rd") == "a b [31mc d"


@pytest.mark.parametrize("detail", ["", " \n"])
def test_nothing_is_nothing(detail: str) -> None:
    assert presentable(detail) is None


def test_length_is_bounded() -> None:
    assert presentable("a" * MAX_SHOWN) == "a" * MAX_SHOWN
    assert presentable("a" * (MAX_SHOWN + 1)) == "a" * (MAX_SHOWN - 1) + "…"
    assert presentable("a" * (MAX_SEARCHED + 1)) is None
    assert presentable("a" * (MAX_SHOWN + 1) + " SELECT a FROM b") is None


@pytest.mark.parametrize(
    ("detail", "logged"),
    [
        ("postgresql://c:hunter2@db/jobs refused", "postgresql://c:***@db/jobs refused"),
        ("postgresql://c:hun/t:er2@db/jobs", "postgresql://c:***@db/jobs"),
        ("host=db password=hunter2 port=1", "host=db password=*** port=1"),
        ("Password: 'hunter 2'; x", "Password: '***'; x"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("key sgk_0123456789 unknown", "key *** unknown"),
        ("eyJhbGciOiJSUzI1.eyJzdWIiOiJh.c2ln bad", "*** bad"),
        ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY----- x", "*** x"),
        ("KeyError at store.py:3", "KeyError at store.py:3"),
    ],
)
def test_the_log_gets_it_without_credentials(detail: str, logged: str) -> None:
    assert loggable(detail) == logged


def test_the_log_gets_it_bounded() -> None:
    assert loggable("x" * MAX_SEARCHED) == "x" * MAX_SEARCHED
    assert loggable("x" * 100_000) == "x" * MAX_SEARCHED + "…"
    assert loggable("x" * (MAX_SEARCHED + 1)) == "x" * (MAX_SEARCHED - 1) + "…"


@pytest.mark.parametrize("size", [MAX_SEARCHED - 20, MAX_SEARCHED - 3, MAX_SEARCHED])
def test_a_cut_leaves_no_beginning_of_a_credential(size: int) -> None:
    text = "x" * (size - 9) + " password=" + "hunter2-Zebra" * 400
    assert "hunter" not in loggable(text)


#: Texts that make patterns with nested repetitions run for hours, one a line.
ADVERSARIAL = r"""
a
a.
a-
a:1
a/
/a
@
a@b-
1.
1:
::
<
\
C:\a\
db-
a.b.C
cn=a,
x.py:1
KeyError
SELECT_
select_a,
select_a_from_b_where_
insert_into_
host=a_
at_a(
File_"
__at_
lookup_a_on_
connection_to_a_
goroutine_
mysql_-p
upstream_
-----BEGIN_
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.
""".replace("_", " ").split("\n")[1:-1]


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_no_text_costs_more_than_its_length(piece: str) -> None:
    """Seconds on a core; a twentieth of the limit is usual."""
    text = piece * (MAX_SEARCHED // len(piece))
    began = process_time()
    presentable(text, from_failure=True)
    loggable(text * 8)
    assert process_time() - began < 4


class TestWhatTheCallerSent:
    def test_is_never_hidden(self) -> None:
        sent = Sent(["/srv/own/sets", "10.1.2.3:8080", "SELECT a FROM b", "it's\n10.9.8.7"])
        for text in (
            "/srv/own/sets is not a file",
            "/srv/own/sets/part-1.jsonl, line 3: empty",
            "no queue 10.1.2.3:8080 and no host 10.1.2.3",
            "'SELECT a FROM b' is too long",
            "'it\\'s\\n10.9.8.7' is not a name",
        ):
            assert presentable(text, sent=sent) == text

    def test_may_have_been_cut(self) -> None:
        long = "10.1.2.3 " * 40
        text = f"{long[:64]!r}... is not a name"
        assert presentable(text, sent=Sent([long])) == text
        assert presentable(text) is None

    def test_opens_nothing_beside_it(self) -> None:
        pieces = Sent(["Traceback (most recent call last)", "SELECT ", "FROM", "10.0.0", "sets"])
        for text in (
            'Traceback (most recent call last):\n  File "/srv/c.py", line 1, in x',
            "SELECT secret FROM jobs",
            "10.0.0.7 is down",
            "/var/lib/coordinator/sets is gone",
        ):
            assert presentable(text, sent=pieces) != text

    def test_credentials_apart(self) -> None:
        url = "https://ann:hunter2-Zebra@example.org/x"
        assert presentable(f"{url} is not a path", sent=Sent([url])) == (
            "https://ann:***@example.org/x is not a path"
        )
        assert presentable(f"{url} is not a path") is None

    def test_of_a_request_are_texts_at_every_depth(self) -> None:
        request = SubmitJobRequest(name="/a/name/x", labels={"/a/key/x": "/a/label/x"})
        request.data_config.sources.add(path="/a/path/x", columns=["/a/column/x"])
        sent = Sent.of(request)
        for part in ("name", "key", "label", "path", "column"):
            assert presentable(f"no /a/{part}/x", sent=sent) == f"no /a/{part}/x"


def test_credentials_of_the_call_are_hidden_whatever_they_look_like() -> None:
    request = SubmitJobRequest()
    request.training_config.environment["WANDB_API_KEY"] = "plain words"
    masker = Asked(request, ("the api secret",)).masker()
    for text in ("it is not plain words", "not the api secret"):
        assert presentable(text, masker=masker) is None
        assert "***" in loggable(text, masker=masker)
