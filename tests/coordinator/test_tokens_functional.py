"""Forwarded tokens, really checked; and jobs that outlive theirs."""

import base64
import hmac
import json
import time
import warnings
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from joserfc.jwk import RSAKey

from generated.mindcoordinator.v1.data_pb2 import GetDataCacheRequest, ValidateDataRequest
from generated.mindcoordinator.v1.errors_pb2 import ErrorInfo, StatusDetails
from generated.mindcoordinator.v1.jobs_pb2 import DataConfig, DataSource, RetryJobRequest
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.issuing import ISSUER, Issuer, issuing

READS = """
    import json, os, sys
    source = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))["data_config"]["sources"][0]
    print(open(source["local_path"]).read())
    sys.exit(int(os.environ.get("LEAVE_WITH", "0")))
"""


def checked(issuer: Issuer) -> dict[str, Any]:
    return {"jwks_url": issuer.url, "token_issuer": ISSUER, "token_leeway": 0.0}


async def refusal(
    client: Client, tokens: dict[str, str], method: str = "GetDataCache", request: Any = None
) -> tuple[grpc.StatusCode, str]:
    call = getattr(client.stub, method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(
            request or GetDataCacheRequest(),
            metadata=(*client.metadata, *tokens.items()),
            timeout=60,
        )
    for token in filter(None, tokens.values()):
        assert token not in (caught.value.details() or "")
    return caught.value.code(), caught.value.details() or ""


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unsigned(token: str) -> str:
    return f"{encoded(json.dumps({'alg': 'none', 'kid': 'first'}).encode())}.{token.split('.')[1]}."


def confused(token: str, public: bytes) -> str:
    """Signed with the public key, as if it were a secret that issuer and coordinator share."""
    head = encoded(json.dumps({"alg": "HS256", "kid": "first"}).encode())
    signed = f"{head}.{token.split('.')[1]}"
    return f"{signed}.{encoded(hmac.digest(public, signed.encode(), 'sha256'))}"


async def test_a_good_token_opens_and_everything_else_is_refused(tmp_path: Path) -> None:
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        good = issuer.pair()
        await client.stub.GetDataCache(
            GetDataCacheRequest(), metadata=(*client.metadata, *good.items()), timeout=30
        )
        other = RSAKey.generate_key(2048)
        public = issuer.key.as_pem(private=False)
        drive = good["x-scaidrive-token"]
        bad = {
            "": "has no scaidrive token",
            "not-a-token": "not a signed JWT",
            issuer.token("scaiatlas"): "'aud'",
            issuer.token(["scaimind"]): "'aud'",
            issuer.token("scaidrive", iss="https://other.example"): "'iss'",
            issuer.token("scaidrive", life=-1): "has expired",
            issuer.token("scaidrive", nbf=int(time.time()) + 60): "'nbf'",
            issuer.token("scaidrive", without="exp"): "exp",
            issuer.token("scaidrive", without="iss"): "iss",
            issuer.token("scaidrive", key=other): "signature",
            issuer.token("scaidrive", header={"kid": "unknown"}): "does not have",
            confused(drive, public): "not signed with RS256",
            unsigned(drive): "not signed with RS256",
            drive[:-8] + ("A" * 8): "signature",
            "x" * 20_000: "",
        }
        for token, problem in bad.items():
            code, text = await refusal(client, {**good, "x-scaidrive-token": token})
            if len(token) < 10_000:
                assert code is grpc.StatusCode.UNAUTHENTICATED
                assert problem in text
        for tenant in ("other", ""):
            code, text = await refusal(client, issuer.pair(tenant=tenant))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "belongs to another tenant" in text
        for claims in ({"without": "tenant_id"}, {"tenant_id": ["local"]}):
            code, _ = await refusal(client, issuer.pair(**claims))
            assert code is grpc.StatusCode.PERMISSION_DENIED


async def reason(client: Client, tokens: dict[str, str]) -> str:
    """What programs are told of a refused token; empty if nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.GetDataCache(
            GetDataCacheRequest(), metadata=(*client.metadata, *tokens.items()), timeout=30
        )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    trailers: Any = caught.value.trailing_metadata()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            status = StatusDetails.FromString(value)
            (detail,) = status.details
            assert (status.code, status.message) == (16, caught.value.details())
            assert detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo"
            info = ErrorInfo.FromString(detail.value)
            assert info.domain == "mindcoordinator.v1"
            return info.reason
    return ""


@pytest.mark.parametrize(
    ("seconds", "reason_of_it"), [(3600, "TOKEN_EXPIRED"), (-3600, "TOKEN_NOT_YET_VALID")]
)
async def test_a_good_token_is_refused_by_a_wrong_clock_alone(
    tmp_path: Path, seconds: int, reason_of_it: str
) -> None:
    def wrong() -> int:
        return time.time_ns() // 1000 + seconds * 1_000_000

    async with (
        issuing() as issuer,
        running(tmp_path, clock=wrong, **checked(issuer)) as (_, client),
    ):
        with structlog.testing.capture_logs() as events:
            assert await reason(client, issuer.pair()) == reason_of_it
        (event,) = (each for each in events if each["event"] == "token_out_of_its_time")
        assert abs(event["seconds_since_issued"] - seconds) < 30
        for other in ({"iss": "https://other.example"}, {"key": RSAKey.generate_key(2048)}):
            assert await reason(client, issuer.pair(**other)) == ""
        for tokens in (issuer.pair(tenant="other"), issuer.pair(without="tenant_id")):
            assert await reason(client, tokens) == ""
        drive = issuer.token(["scaimind"])
        assert await reason(client, {**issuer.pair(), "x-scaidrive-token": drive}) == ""


async def test_a_token_that_never_counts_is_nothing_of_the_clocks(tmp_path: Path) -> None:
    now = int(time.time())
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        for claims in ({"nbf": now + 100, "exp": now + 50}, {"nbf": "soon"}, {"iat": [now]}):
            assert await reason(client, issuer.pair(**claims)) == ""
        assert await reason(client, issuer.pair(life=-1)) == ""


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("SubmitJob", submission()),
        (
            "ValidateData",
            ValidateDataRequest(data_sources=[DataSource(path="scaidrive://local/a")]),
        ),
        ("GetDataCache", GetDataCacheRequest()),
    ],
)
async def test_each_call_that_touches_data_demands_both(
    tmp_path: Path, method: str, request_: Any
) -> None:
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        for missing in ("x-scaidrive-token", "x-scaiatlas-token"):
            code, text = await refusal(client, {**issuer.pair(), missing: ""}, method, request_)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert missing in text


async def test_keys_that_cannot_be_had(tmp_path: Path) -> None:
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        issuer.broken = True
        code, _ = await refusal(client, issuer.pair())
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_weak_keys_and_keys_for_encryption_open_nothing(tmp_path: Path) -> None:
    # The library warns of weak keys; an issuer may have one all the same.
    with warnings.catch_warnings(action="ignore"):
        weak, encryption = RSAKey.generate_key(1024), RSAKey.generate_key(2048)
        served = [
            RSAKey.import_key({**weak.as_dict(private=True), "kid": "weak"}),
            RSAKey.import_key(
                {**encryption.as_dict(private=True), "kid": "encryption", "use": "enc"}
            ),
        ]
    async with issuing() as issuer:
        issuer.keys += served
        async with running(tmp_path, **checked(issuer)) as (_, client):
            for kid, key, problem in (
                ("encryption", encryption, "not for signatures"),
                ("weak", weak, "fewer than 2048"),
            ):
                with warnings.catch_warnings(action="ignore"):
                    tokens = issuer.pair(key=key, header={"kid": kid})
                code, text = await refusal(client, tokens)
                assert code is grpc.StatusCode.UNAUTHENTICATED
                assert problem in text


def written(folder: Path, token: str) -> list[Path]:
    """The files that have a token in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if token.encode() in path.read_bytes()]


async def test_a_job_that_waits_longer_than_its_token_lives_gets_its_data(tmp_path: Path) -> None:
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        request = submission(
            data_config=DataConfig(sources=[DataSource(path=client.write("a.jsonl", '{"a": 1}\n'))])
        )
        client.write("train.py", READS)
        request.scheduling_config.not_before.CopyFrom(Timestamp(seconds=int(time.time()) + 10))
        tokens = issuer.pair(life=7)
        job_id = (
            await client.stub.SubmitJob(
                request, metadata=(*client.metadata, *tokens.items()), timeout=30
            )
        ).job_id
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        assert any('{"a": 1}' in entry.message for entry in await client.log(job_id))
        code, _ = await refusal(client, tokens)
        assert code is grpc.StatusCode.UNAUTHENTICATED
    assert not [token for token in tokens.values() if written(tmp_path, token)]


async def test_a_retry_has_what_its_parent_was_granted(tmp_path: Path) -> None:
    async with issuing() as issuer, running(tmp_path, **checked(issuer)) as (_, client):
        request = submission(
            data_config=DataConfig(sources=[DataSource(path=client.write("a.jsonl", '{"a": 1}\n'))])
        )
        client.write("train.py", READS)
        request.training_config.environment["LEAVE_WITH"] = "3"
        job_id = (
            await client.stub.SubmitJob(
                request, metadata=(*client.metadata, *issuer.pair().items()), timeout=30
            )
        ).job_id
        assert status_of(await client.end(job_id)) == "FAILED"
        child = await client.call("RetryJob", RetryJobRequest(job_id=job_id))
        assert (await client.end(child.job_id)).exit_code == 3
        assert any('{"a": 1}' in entry.message for entry in await client.log(child.job_id))
