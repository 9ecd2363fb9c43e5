"""A tenant who has something of everything, and the strangers who try to get at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.scaikey.permissions import ROLES, Permission
from tests.auth.scripted_issuer import claims, signed
from tests.coordinator.harness import Client
from tests.coordinator.scripts import COUNTS, WAITS
from tests.replicas import Replica, new_key

#: In everything that the owner names; never in an answer to a stranger.
MARK = "confidential"


def submission(script: str, **changes: Any) -> dict[str, Any]:
    """The body that submits a job which runs this script."""
    return {
        "name": f"{MARK} job",
        "training_config": {
            "training_type": "SFT",
            "base_model": {"model_id": "none"},
            "framework": {"type": "CUSTOM", "custom_script_path": script},
            "environment": {"UP_TO": "1000000"},
        },
        "data_config": {"sources": [{"path": script}]},
        "resource_config": {},
        "labels": {"project": MARK},
        **changes,
    }


@dataclass(frozen=True, slots=True)
class Owner:
    """What belongs to tenant `owner`."""

    token: str
    #: By what it is: everything that a stranger could send as an id.
    ids: Mapping[str, str]
    #: Of `GET /jobs`.
    page_token: str
    #: A ticket for the logs of the live job; not used.
    ticket: str
    #: A file of its own.
    file: str


async def owner_of_everything(gateway: Replica, client: Client, dsn: str) -> Owner:
    """Give the tenant of `client` jobs, a checkpoint, a child, an evaluation, a page, a ticket."""
    token = (await new_key(dsn, tenant=client.tenant, user=f"{MARK}-user")).secret

    async def post(path: str, body: Any) -> Any:
        answer = await gateway.ask("POST", path, token=token, json=body)
        assert answer.status in (200, 201), answer.body
        return answer.data

    waits = client.write(f"{MARK}/waits.py", WAITS)
    counts = client.write(f"{MARK}/counts.py", COUNTS)
    data = client.write(f"{MARK}/data.jsonl", '{"text": "a"}\n')
    live = (await post("/jobs", submission(waits)))["job_id"]
    await client.until_line(live, "ready")
    paused = (await post("/jobs", submission(counts)))["job_id"]
    await client.until_line(paused, "count")
    await post(f"/jobs/{paused}/pause", {"save_checkpoint": True})
    checkpoint = (await client.until_status(paused, "PAUSED")).checkpoints[0].checkpoint_id
    failed = (await post("/jobs", submission(client.write("fails.py", "raise SystemExit(1)"))))[
        "job_id"
    ]
    await client.until_status(failed, "FAILED")
    child = (await post(f"/jobs/{failed}/retry", {}))["job_id"]
    await client.until_status(child, "FAILED")
    evaluation = await post(
        "/evaluations",
        {
            "job_id": paused,
            "checkpoint_id": checkpoint,
            "benchmarks": [{"name": "perplexity", "dataset": data}],
        },
    )
    page = (await gateway.ask("GET", "/jobs?page_size=1", token=token)).data
    ticket = (await post("/stream-tickets", {"job_id": live, "kind": "logs"}))["ticket"]
    return Owner(
        token,
        {
            "live job": live,
            "paused job": paused,
            "failed job": failed,
            "child job": child,
            "evaluation": evaluation["evaluation_id"],
            "checkpoint": checkpoint,
        },
        page["next_page_token"],
        ticket,
        data,
    )


async def strangers(dsn: str, *, tenant: str, now: float) -> dict[str, str]:
    """Tokens of another tenant: each role, each permission and nothing, as API key and as JWT."""
    grants: dict[str, dict[str, list[str]]] = {role: {"roles": [role]} for role in ROLES}
    grants |= {each.value: {"permissions": [each.value]} for each in Permission}
    found: dict[str, str] = {}
    for name, given in grants.items():
        found[f"key of {name}"] = (await new_key(dsn, tenant=tenant, user="eve", **given)).secret
        said = {"roles": [], "permissions": [], **given}
        found[f"JWT of {name}"] = signed(claims(now, sub="eve", tenant_id=tenant, **said))
    return found
