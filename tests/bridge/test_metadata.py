import pytest

from app import errors
from app.bridge.client import CoordinatorClient
from app.bridge.metadata import call_metadata
from app.caller import Caller, DownstreamTokens
from app.errors import ApiError
from tests.scripted_coordinator import ScriptedCoordinator

UNUSABLE = ["", " acme", "acme ", "ac\nme", "ac\x00me", "ac\x7fme", "äcme", "\ud800", "a" * 257]


def keys(metadata: tuple[tuple[str, str], ...]) -> list[str]:
    return [key for key, _ in metadata]


def test_all_of_it() -> None:
    metadata = call_metadata(
        Caller(tenant_id="acme inc", user_id="ann@acme", request_id="req_1"),
        api_secret="s",
        tokens=DownstreamTokens(scaidrive="d", scaiatlas="a"),
    )

    assert metadata == (
        ("x-api-secret", "s"),
        ("x-tenant-id", "acme inc"),
        ("x-user-id", "ann@acme"),
        ("x-request-id", "req_1"),
        ("x-scaidrive-token", "d"),
        ("x-scaiatlas-token", "a"),
    )


@pytest.mark.parametrize("user_id", [None, ""])
def test_what_is_not_known_is_left_out(user_id: str | None) -> None:
    metadata = call_metadata(Caller(tenant_id="acme", user_id=user_id), api_secret="s")

    assert keys(metadata) == ["x-api-secret", "x-tenant-id"]


@pytest.mark.parametrize("tenant_id", UNUSABLE)
def test_a_tenant_that_cannot_be_carried_exactly_is_refused(tenant_id: str) -> None:
    with pytest.raises(ApiError) as refused:
        call_metadata(Caller(tenant_id=tenant_id, user_id="u"), api_secret="s")

    assert refused.value.kind is errors.AUTH_TOKEN_INVALID
    assert "tenant id" in refused.value.message


@pytest.mark.parametrize("user_id", UNUSABLE[1:])
def test_so_is_a_user(user_id: str) -> None:
    with pytest.raises(ApiError) as refused:
        call_metadata(Caller(tenant_id="acme", user_id=user_id), api_secret="s")

    assert refused.value.kind is errors.AUTH_TOKEN_INVALID
    assert "user id" in refused.value.message


@pytest.mark.parametrize("request_id", UNUSABLE[:-1])
def test_a_request_id_that_cannot_be_carried_is_left_out(request_id: str) -> None:
    metadata = call_metadata(
        Caller(tenant_id="acme", user_id="u", request_id=request_id), api_secret="s"
    )

    assert "x-request-id" not in keys(metadata)


@pytest.mark.parametrize("secret", ["", "s\n", "ß"])
def test_a_secret_that_cannot_be_carried_is_no_fault_of_the_callers(secret: str) -> None:
    caller = Caller(tenant_id="acme", user_id="u")
    with pytest.raises(ApiError) as refused:
        call_metadata(caller, api_secret=secret)
    assert refused.value.kind is errors.INTERNAL_ERROR

    with pytest.raises(ApiError) as refused:
        call_metadata(
            caller, api_secret="s", tokens=DownstreamTokens(scaidrive="d", scaiatlas=secret)
        )
    assert refused.value.kind is errors.INTERNAL_ERROR


async def test_every_character_that_is_let_through_arrives(
    client: CoordinatorClient, coordinator: ScriptedCoordinator
) -> None:
    tenant_id = "".join(map(chr, range(0x21, 0x7F))) + " ,;=%20 " + "~"

    await client.get_job(Caller(tenant_id=tenant_id, user_id=tenant_id), "j")

    [request] = coordinator.requests("GetJob")
    assert request.metadata["x-tenant-id"] == tenant_id
    assert request.metadata["x-user-id"] == tenant_id
