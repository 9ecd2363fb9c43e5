"""The overlay for a Ray cluster: true of KubeRay's schema, of Ray, and of the coordinator."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs
import kubernetes_validate  # type: ignore[import-untyped]  # no stubs
import pytest
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]  # no stubs

from app.bridge.channel import service_config
from app.coordinator import CoordinatorConfig
from app.coordinator.isolation.levels import UidRange
from app.gateway.settings import Settings
from app.schemas.jobs import SubmitJobSchema
from tests.deploy.raycluster_schema import SPEC
from tests.deploy.rendered import (
    DEPLOY,
    Rendered,
    containers_of,
    render,
    render_folder,
    render_with,
)

CLUSTER = "scaimind-ray"
RELEASES = sorted(set(all_versions()), key=lambda text: [*map(int, text.split("."))])[-3:]
#: What a pod with `hostUsers: false` has mapped.
MAPPED = 65_536


@pytest.fixture(params=["ray", "ray-s3"])
def overlay(request: pytest.FixtureRequest) -> Rendered:
    """What both have, wherever the data are."""
    return render(request.param)


@pytest.fixture
def shared_disk() -> Rendered:
    return render("ray")


def pod(overlay: Rendered, name: str) -> dict[str, Any]:
    (found,) = (template for each, template in overlay.pods() if each == f"scaimind-{name}")
    return dict(found)


def container(overlay: Rendered, name: str) -> dict[str, Any]:
    (found,) = (each for each in overlay.containers() if each["name"] == name)
    return dict(found)


def cluster(overlay: Rendered) -> dict[str, Any]:
    return dict(overlay.named("RayCluster", CLUSTER)["spec"])


def config(overlay: Rendered) -> CoordinatorConfig:
    environ = overlay.environ(container(overlay, "coordinator"))
    for name in ("API_SECRET", "DATABASE_DSN"):
        del environ[f"SCAIMIND_COORDINATOR_{name}_FILE"]
        environ[f"SCAIMIND_COORDINATOR_{name}"] = "a-secret-of-16-or-more"
    environ["SCAIMIND_COORDINATOR_ADVERTISED_ADDRESS"] = environ[
        "SCAIMIND_COORDINATOR_ADVERTISED_ADDRESS"
    ].replace("$(POD_IP)", "10.0.0.7")
    return CoordinatorConfig.from_env(environ)


def gateway(overlay: Rendered) -> Settings:
    environ = overlay.environ(container(overlay, "gateway"))
    for name in ("SCAIMIND_DATABASE_DSN", "SCAIMIND_UPSTREAM_API_SECRET"):
        del environ[f"{name}_FILE"]
        environ[name] = "a-secret-of-16-or-more"
    return Settings.from_env(environ)


def variables(environ: list[dict[str, Any]]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in environ}


def test_kuberay_takes_the_cluster(overlay: Rendered) -> None:
    jsonschema.validate(cluster(overlay), SPEC)
    for group in cluster(overlay)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rayStartParams": {"labels": "scaimind/node=$POD_NAME"}},
        {"rayStartParams": {"num-cpus": 0}},
        {"minReplicas": -1},
        {"replica": 2},
    ],
)
def test_what_kuberay_refuses_is_seen(overlay: Rendered, wrong: dict[str, Any]) -> None:
    spec = cluster(overlay)
    spec["workerGroupSpecs"] = [{**spec["workerGroupSpecs"][0], **wrong}]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SPEC)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_kubernetes_takes_its_pods(overlay: Rendered, name: str, release: str) -> None:
    made = {"apiVersion": "v1", "kind": "Pod", **pod(overlay, name)}
    kubernetes_validate.validate(made, release, strict=True)


def test_head_workers_and_coordinators_are_one_image_with_the_ray_that_is_locked(
    overlay: Rendered,
) -> None:
    images = {
        each["image"]
        for name in ("ray-head", "ray-worker", "coordinator")
        for each in containers_of(pod(overlay, name))
    }
    assert len(images) == 1
    lock = (DEPLOY.parent / "requirements" / "ray.txt").read_text()
    assert re.findall(r"^ray==(\S+)", lock, re.MULTILINE) == [cluster(overlay)["rayVersion"]]


def test_every_process_of_ray_has_the_token_as_a_file(overlay: Rendered) -> None:
    options = cluster(overlay)["autoscalerOptions"]
    for each in (
        *(container(overlay, name) for name in ("ray-head", "ray-worker", "ray-node")),
        options,
    ):
        environ = variables(each["env"])
        assert environ["RAY_AUTH_MODE"] == "token"
        assert environ["RAY_AUTH_TOKEN_PATH"] == str(config(overlay).ray_token_file)
        assert "RAY_AUTH_TOKEN" not in environ
        [mount] = [each for each in each["volumeMounts"] if each["name"] == "ray-token"]
        assert environ["RAY_AUTH_TOKEN_PATH"].startswith(f"{mount['mountPath']}/")


def test_a_node_has_the_name_of_its_pod(overlay: Rendered) -> None:
    environ = container(overlay, "ray-worker")["env"]
    # Kubernetes replaces names of variables that come before.
    assert environ[0] == {
        "name": "POD_NAME",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
    }
    labels = json.loads(variables(environ)["RAY_OVERRIDE_LABELS"])
    assert labels == {"scaimind/node": "$(POD_NAME)"}


def test_a_worker_is_started_again_in_its_pod_with_what_its_runs_recorded(
    overlay: Rendered,
) -> None:
    # Version 2 has KubeRay set `restartPolicy: Never`.
    assert cluster(overlay)["autoscalerOptions"]["version"] == "v1"
    spec = pod(overlay, "ray-worker")["spec"]
    assert spec.get("restartPolicy", "Always") == "Always"
    [mount] = [
        each
        for each in container(overlay, "ray-worker")["volumeMounts"]
        if each["mountPath"] == str(config(overlay).ray_node_dir)
    ]
    [volume] = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    assert "emptyDir" in volume


def test_a_lost_node_is_waited_for_longer_than_it_goes_on(overlay: Rendered) -> None:
    environ = variables(container(overlay, "ray-worker")["env"])
    goes_on = float(environ["RAY_gcs_rpc_server_reconnect_timeout_s"])
    assert goes_on < config(overlay).ray_lost_node_seconds


def test_the_control_service_keeps_what_it_knows_on_a_volume(overlay: Rendered) -> None:
    environ = variables(container(overlay, "ray-head")["env"])
    assert environ["RAY_gcs_storage"] == "rocksdb"
    [mount] = [
        each
        for each in container(overlay, "ray-head")["volumeMounts"]
        if environ["RAY_gcs_storage_path"].startswith(f"{each['mountPath']}/")
    ]
    [volume] = [
        each
        for each in pod(overlay, "ray-head")["spec"]["volumes"]
        if each["name"] == mount["name"]
    ]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert overlay.named("PersistentVolumeClaim", claim)


def test_coordinators_and_workers_share_the_data_at_the_same_path(shared_disk: Rendered) -> None:
    coordinator = config(shared_disk)
    assert coordinator.ray_shared_disk
    assert not coordinator.drive_url
    for name, of in (("coordinator", "coordinator"), ("ray-worker", "ray-worker")):
        [mount] = [
            each
            for each in container(shared_disk, of)["volumeMounts"]
            if each["mountPath"] == str(coordinator.data_dir)
        ]
        [volume] = [
            each
            for each in pod(shared_disk, name)["spec"]["volumes"]
            if each["name"] == mount["name"]
        ]
        claim = volume["persistentVolumeClaim"]["claimName"]
        modes = shared_disk.named("PersistentVolumeClaim", claim)["spec"]["accessModes"]
        assert modes == ["ReadWriteMany"]
    assert coordinator.drive_root.is_relative_to(coordinator.data_dir)
    assert not coordinator.ray_node_dir.is_relative_to(coordinator.data_dir)


def test_where_the_data_are_is_one_line_of_an_overlay() -> None:
    lines = [
        (DEPLOY / "overlays" / name / "kustomization.yaml").read_text().split("components:")[1]
        for name in ("ray", "ray-s3")
    ]
    one, other = (set(re.findall(r"^  - (.*)", each, re.MULTILINE)) for each in lines)
    assert one - other == {"../../components/ray-shared-disk"}
    assert other - one == {"../../components/ray-s3"}


def test_jobs_users_are_within_what_a_pod_has_mapped(overlay: Rendered) -> None:
    for name in ("coordinator", "ray-worker"):
        assert pod(overlay, name)["spec"]["hostUsers"] is False
    uids = config(overlay).job_uids
    assert isinstance(uids, UidRange)
    assert uids.uids[-1] < MAPPED
    assert config(overlay).isolation == "namespaces"


def test_a_coordinator_has_a_ray_node_on_its_machine_that_it_can_see(overlay: Rendered) -> None:
    spec = pod(overlay, "coordinator")["spec"]
    assert spec["shareProcessNamespace"] is True
    node = container(overlay, "ray-node")
    # It is there before the coordinator, and goes on.
    assert node in spec["initContainers"]
    assert node["restartPolicy"] == "Always"
    assert "startupProbe" in node
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(node["args"])
    assert f"--address={config(overlay).ray_address}" in node["args"]
    # The driver meets it by a socket there.
    temporary = [
        [mount for mount in each["volumeMounts"] if mount["mountPath"] == "/tmp"]
        for each in containers_of(pod(overlay, "coordinator"))
    ]
    assert len({str(each) for each in temporary}) == 1
    assert temporary[0]


def test_the_head_is_called_by_the_name_that_kuberay_gives_its_service(overlay: Rendered) -> None:
    assert config(overlay).ray_address == f"{CLUSTER}-head-svc:6379"
    ports = {
        each["name"]: each["containerPort"] for each in container(overlay, "ray-head")["ports"]
    }
    assert ports["gcs-server"] == 6379


def test_the_gateway_calls_the_coordinator_that_leads(overlay: Rendered) -> None:
    upstream = gateway(overlay).upstream
    service = overlay.named("Service", "scaimind-coordinator")["spec"]
    (port,) = (each["port"] for each in service["ports"] if each["name"] == "grpc")
    assert upstream.address == f"dns:///scaimind-coordinator:{port}"
    # The name has both addresses, and their health says which one serves.
    assert service["clusterIP"] == "None"
    assert "healthCheckConfig" in service_config(upstream)
    assert overlay.named("Deployment", "scaimind-coordinator")["spec"]["replicas"] == 2
    assert config(overlay).advertised_address.endswith(f":{port}")


def test_members_of_the_cluster_reach_each_other_on_every_port(overlay: Rendered) -> None:
    everybody = [{"podSelector": {"matchLabels": {"scaimind/ray": CLUSTER}}}]
    for name in ("coordinator", "ray-head", "ray-worker"):
        assert pod(overlay, name)["metadata"]["labels"]["scaimind/ray"] == CLUSTER
        policy = overlay.named("NetworkPolicy", f"scaimind-{name}")["spec"]
        assert {"from": everybody} in policy["ingress"]
        assert {"to": everybody} in policy["egress"]
    for policy in overlay.kind("NetworkPolicy"):
        if policy["metadata"]["name"] in ("scaimind-ray-head", "scaimind-ray-worker"):
            assert policy["spec"]["ingress"] == [{"from": everybody}]


def test_no_worker_is_evicted_and_one_coordinator_at_a_time(overlay: Rendered) -> None:
    for name in ("coordinator", "ray-worker"):
        selector = overlay.named("PodDisruptionBudget", f"scaimind-{name}")["spec"]["selector"]
        assert selector["matchLabels"].items() <= pod(overlay, name)["metadata"]["labels"].items()
    budget = overlay.named("PodDisruptionBudget", "scaimind-ray-worker")["spec"]
    assert budget["minAvailable"] > sum(
        group["maxReplicas"] for group in cluster(overlay)["workerGroupSpecs"]
    )
    coordinators = overlay.named("PodDisruptionBudget", "scaimind-coordinator")["spec"]
    assert coordinators["maxUnavailable"] == 1


def test_prometheus_finds_the_coordinators() -> None:
    found = render_with("ray", "coordinator-monitoring")
    monitor = found.named("ServiceMonitor", "scaimind-coordinator")["spec"]
    service = found.named("Service", "scaimind-coordinator")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["endpoints"]} <= {
        each["name"] for each in service["spec"]["ports"]
    }


def documented(heading: str) -> str:
    """A part of docs/cluster.md."""
    text = (DEPLOY.parent / "docs" / "cluster.md").read_text()
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return dict(pairwise(parts))[heading]


def test_the_page_makes_every_secret_that_is_mounted(overlay: Rendered) -> None:
    page = documented("Kubernetes")
    made = {
        name: set(re.findall(r"--from-file=([a-z_-]+)=", rest))
        for name, rest in re.findall(r"create secret generic (\S+)(.*)", page)
    }
    needed: dict[str, set[str]] = {}
    for _, template in overlay.pods():
        for volume in template["spec"].get("volumes", ()):
            if secret := volume.get("secret"):
                keys = {each["key"] for each in secret.get("items", ())}
                needed.setdefault(secret["secretName"], set()).update(keys)
    needed[CLUSTER].add("auth_token")
    assert {name: keys & made.get(name, set()) for name, keys in needed.items()} == needed


def test_everything_that_the_page_names_is_there(overlay: Rendered) -> None:
    names = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in overlay.objects}
    kinds = "deployment|raycluster|persistentvolumeclaim|job|gateway"
    asked = set(re.findall(rf"\b(?:{kinds})/scaimind[a-z-]*", documented("Kubernetes")))
    assert asked
    assert asked <= names
    for lock in re.findall(r"--build-arg LOCK=(\w+)", documented("Kubernetes")):
        assert (DEPLOY.parent / "requirements" / f"{lock}.txt").is_file()


@pytest.mark.parametrize("where", ["shared disk", "S3"])
def test_the_pages_overlay_can_be_rendered(tmp_path: Path, where: str) -> None:
    code, in_s3 = re.findall(
        r"^```yaml\n(.*?)^```", documented("Kubernetes"), re.DOTALL | re.MULTILINE
    )
    if where == "S3":
        # As the page says.
        assert "`resources: [../ray-s3]`" in documented("Kubernetes")
        theirs = yaml.safe_load(code)
        theirs["resources"] = ["../ray-s3"]
        theirs["patches"] = [
            each for each in theirs["patches"] if each["target"]["kind"] != "PersistentVolumeClaim"
        ]
        code = yaml.safe_dump(theirs) + in_s3
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy/overlays/ours"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(code)
    ours = render_folder(folder)
    jsonschema.validate(cluster(ours), SPEC)
    made = {"apiVersion": "v1", "kind": "Pod", **pod(ours, "ray-worker")}
    kubernetes_validate.validate(made, RELEASES[-1], strict=True)
    images = {each["image"] for each in ours.containers()}
    assert all(re.search(r"^registry\.ours\.example/.*@sha256:[12]{64}$", each) for each in images)
    assert "scaimind.example.com" not in yaml.safe_dump_all(ours.objects)
    expected = "s3://ours/scaimind" if where == "S3" else ""
    assert (config(ours).drive_url, gateway(ours).drive.url) == (expected, expected)


def test_the_pages_job_is_one_that_the_gateway_takes() -> None:
    (body,) = re.findall(
        r"job\.json <<'END'\n(.*?)\nEND", documented("A job on several nodes"), re.DOTALL
    )
    taken = SubmitJobSchema().load(json.loads(body))
    assert taken["resource_config"]["node_count"] == 2


def test_the_pages_script_is_a_job_on_two_nodes() -> None:
    (script,) = re.findall(
        r"hello\.py <<'END'\n(.*?)\nEND", documented("A job on several nodes"), re.DOTALL
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environ = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**environ, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    try:
        said = [rank.communicate(timeout=60)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert "rank 0 says hello\nrank 1 of 2 on" in said[0]
    assert said[1].startswith("rank 0 of 2 on")
