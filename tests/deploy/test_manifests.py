"""The manifests: valid for Kubernetes, and true of the program that they run."""

import re
import shlex
import shutil
from copy import deepcopy
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # no stubs
import pytest
import yaml
from aiohttp import web
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]  # no stubs

from app.api.settings import ServerSettings
from app.cli.main import main
from app.configuration.section import Section
from app.coordinator import CoordinatorConfig
from app.coordinator.service.serving.grpc_server import LIVENESS
from app.gateway.routes import PREFIX, add_routes
from app.gateway.settings import SECTIONS, Settings
from app.hub.connection import Connection
from tests.deploy.ingress import INGRESS
from tests.deploy.rendered import (
    DEPLOY,
    OVERLAYS,
    Rendered,
    containers_of,
    render,
    render_folder,
    render_with,
)

#: The newest release whose schemas are known, and the two before it.
RELEASES = sorted(set(all_versions()), key=lambda text: [*map(int, text.split("."))])[-3:]
#: Of these, no schema is at hand; what they refer to is checked below.
NO_SCHEMA = {
    "Gateway",
    "HTTPRoute",
    "PrometheusRule",
    "ProxySettingsPolicy",
    "RayCluster",
    "ServiceMonitor",
    "SnippetsPolicy",
    "UpstreamSettingsPolicy",
}
GATEWAY = "scaimind-gateway"
COORDINATOR = "scaimind-coordinator"
#: Give jobs users of their own.
RUN_JOBS = {COORDINATOR, "scaimind-ray-worker"}
#: KubeRay gives it a service account, by whose token it changes the number of workers.
RAY_HEAD = "scaimind-ray-head"
#: Beside a coordinator.
RAY_NODE = "ray-node"
DIGEST = re.compile(r"[a-z0-9./-]+@sha256:[0-9a-f]{64}")
#: Where clouds hand out credentials of the machine.
METADATA = [
    ip_address(each)
    for each in (
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe"),
    )
]
#: What giving each job a user of its own takes, of root's rights in the pod.
CAPABILITIES = {
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETFCAP", "SETGID", "SETUID", "SYS_PTRACE"),
}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


@pytest.fixture(scope="module")
def paths() -> set[str]:
    """The paths that the gateway serves."""
    app = web.Application()
    add_routes(app)
    return {each.canonical for each in app.router.resources()}


def gateway_container(overlay: Rendered) -> dict[str, Any]:
    (found,) = overlay.named("Deployment", GATEWAY)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def coordinator_container(overlay: Rendered) -> dict[str, Any]:
    (found,) = overlay.named("StatefulSet", COORDINATOR)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def labels_of(overlay: Rendered, name: str) -> dict[str, str]:
    return dict(next(pod["metadata"]["labels"] for each, pod in overlay.pods() if each == name))


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_them(overlay: Rendered, release: str) -> None:
    unknown = set()
    for each in overlay.objects:
        try:
            kubernetes_validate.validate(each, release, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(each["kind"])
    assert unknown <= NO_SCHEMA


def test_everything_is_in_the_namespace_and_no_secret_is_written_down(overlay: Rendered) -> None:
    assert {each["metadata"]["namespace"] for each in overlay.objects} == {"scaimind"}
    assert not overlay.kind("Secret")


def test_pods_have_no_rights_that_they_do_not_need(overlay: Rendered) -> None:
    for name, pod in overlay.pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is (name == RAY_HEAD)
        assert spec["enableServiceLinks"] is False
        own_users = name in RUN_JOBS
        # Where it serves the drive it reads files of jobs' users, as root of a user namespace.
        serves_drive = name == GATEWAY and "persistentVolumeClaim" in str(spec.get("volumes"))
        assert spec.get("hostUsers", True) is not (own_users or serves_drive)
        assert spec["securityContext"]["runAsNonRoot"] is not (own_users or serves_drive)
        profile = "Unconfined" if own_users else "RuntimeDefault"
        assert spec["securityContext"]["seccompProfile"] == {"type": profile}
        if name != RAY_HEAD:
            assert overlay.named("ServiceAccount", spec["serviceAccountName"])
        for container in containers_of(pod):
            rights = deepcopy(container["securityContext"])
            # In a user namespace of the pod's own: it gives each job a user.
            if own_users and container["name"] != RAY_NODE:
                assert rights.pop("procMount") == "Unmasked"
                assert set(rights["capabilities"].pop("add")) == CAPABILITIES
            if serves_drive:
                assert rights["capabilities"].pop("add") == ["DAC_OVERRIDE", "FOWNER"]
            assert rights == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            assert DIGEST.fullmatch(container["image"])


def test_volumes_have_limits(overlay: Rendered) -> None:
    for _, pod in overlay.pods():
        for volume in pod["spec"].get("volumes", ()):
            assert "hostPath" not in volume
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]
                for container in containers_of(pod):
                    assert "ephemeral-storage" in container["resources"]["limits"]


def test_no_pod_reaches_the_clouds_metadata(overlay: Rendered) -> None:
    policies = {
        each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]: each["spec"]
        for each in overlay.kind("NetworkPolicy")
    }
    assert {_labels(pod)["app.kubernetes.io/name"] for _, pod in overlay.pods()} == set(policies)
    for policy in policies.values():
        assert "Egress" in policy["policyTypes"]
        for rule in policy["egress"]:
            ports = {each["port"] for each in rule.get("ports", ())}
            blocks = [each["ipBlock"] for each in rule.get("to", ()) if "ipBlock" in each]
            # Metadata are served on port 80.
            assert "to" in rule or (ports and 80 not in ports)
            for address in METADATA:
                assert not any(_allows(block, address) for block in blocks), address


def _allows(block: dict[str, Any], address: IPv4Address | IPv6Address) -> bool:
    return address in ip_network(block["cidr"]) and not any(
        address in ip_network(each) for each in block.get("except", ())
    )


def test_their_commands_and_variables_are_those_of_the_program(overlay: Rendered) -> None:
    known: set[str] = set()
    sections: list[type[Section]] = [CoordinatorConfig, *SECTIONS.values()]
    for section in sections:
        settings = {section.variable(each.name) for each in fields(section)}
        known |= settings | {f"{each}_FILE" for each in settings}
    for container in overlay.containers():
        if not container["name"].startswith("ray-"):
            (command,) = container["args"]
            assert command in main.commands
        environ = overlay.environ(container)
        assert {each for each in environ if each.startswith("SCAIMIND_")} <= known


def test_the_gateway_takes_their_settings(overlay: Rendered) -> None:
    environ = overlay.environ(gateway_container(overlay))
    for name in [each for each in environ if each.endswith("_FILE")]:
        del environ[name]
        environ[name.removesuffix("_FILE")] = "a-secret-of-16-or-more"
    settings = Settings.from_env(environ)
    (port,) = gateway_container(overlay)["ports"]
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", port["containerPort"])
    autoscaler = overlay.named("HorizontalPodAutoscaler", GATEWAY)
    (watchers,) = (each["pods"] for each in autoscaler["spec"]["metrics"] if each["type"] == "Pods")
    assert watchers["metric"]["name"] == "scaimind_watchers"
    assert int(watchers["target"]["averageValue"]) < settings.hub.max_watchers


def test_its_secrets_are_read_from_where_they_are_mounted(overlay: Rendered) -> None:
    for container in overlay.containers():
        files = {
            value
            for name, value in overlay.environ(container).items()
            if name.endswith("_FILE") or name == "RAY_AUTH_TOKEN_PATH"
        }
        mounts = [each["mountPath"] for each in container.get("volumeMounts", ())]
        assert all(any(each.startswith(f"{mount}/") for mount in mounts) for each in files)


def test_probes_and_services_lead_to_what_is_there(overlay: Rendered, paths: set[str]) -> None:
    for container in overlay.containers():
        ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if asked := container.get(probe, {}).get("httpGet"):
                assert asked["path"] in paths
                assert asked["port"] in ports
            elif asked := container.get(probe, {}).get("grpc"):
                assert asked["port"] in ports.values()
                # One that stands by is healthy, but does not serve.
                stands_by = overlay.kind("RayCluster")
                assert asked.get("service") == (LIVENESS if stands_by else None)
            elif asked := container.get(probe, {}).get("tcpSocket"):
                assert asked["port"] in ports
    for service in overlay.kind("Service"):
        selector = service["spec"]["selector"]
        (pod,) = (pod for _, pod in overlay.pods() if selector.items() <= _labels(pod).items())
        offered = {each["name"] for c in pod["spec"]["containers"] for each in c["ports"]}
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= offered


def _labels(pod: dict[str, Any]) -> dict[str, str]:
    return dict(pod["metadata"]["labels"])


def test_what_selects_pods_selects_some(overlay: Rendered) -> None:
    budget = overlay.named("PodDisruptionBudget", GATEWAY)["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels_of(overlay, GATEWAY).items()
    pods = [_labels(pod).items() for _, pod in overlay.pods()]
    for policy in overlay.kind("NetworkPolicy"):
        selected = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(selected <= pod for pod in pods)
    spread = overlay.named("Deployment", GATEWAY)["spec"]["template"]["spec"][
        "topologySpreadConstraints"
    ]
    for each in spread:
        assert each["labelSelector"]["matchLabels"].items() <= labels_of(overlay, GATEWAY).items()
    target = overlay.named("HorizontalPodAutoscaler", GATEWAY)["spec"]["scaleTargetRef"]
    assert overlay.named(target["kind"], target["name"])


def test_a_pod_that_goes_is_given_the_time_that_it_takes(overlay: Rendered) -> None:
    pod = overlay.named("Deployment", GATEWAY)["spec"]["template"]["spec"]
    (_, _, program) = gateway_container(overlay)["lifecycle"]["preStop"]["exec"]["command"]
    asleep = float(program.partition("sleep(")[2].rstrip(")"))
    # The server waits for open requests twice.
    leaving = Connection.GRACE + 2 * ServerSettings().shutdown_timeout
    assert asleep + leaving < pod["terminationGracePeriodSeconds"]


def test_the_ingress_leads_to_the_gateway() -> None:
    overlay = render("ingress-nginx")
    (rule,) = overlay.named("Ingress", GATEWAY)["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["path"] == PREFIX
    backend = path["backend"]["service"]
    ports = overlay.named("Service", backend["name"])["spec"]["ports"]
    assert backend["port"]["name"] in {each["name"] for each in ports}


@pytest.mark.parametrize("name", ["gateway-api", "one-machine"])
def test_the_gateway_api_objects_refer_to_each_other(name: str) -> None:
    overlay = render(name)
    route = overlay.named("HTTPRoute", GATEWAY)["spec"]
    (parent,) = route["parentRefs"]
    (listener,) = overlay.named("Gateway", parent["name"])["spec"]["listeners"]
    assert route["hostnames"] == [listener["hostname"]]
    (rule,) = route["rules"]
    served = [match["path"] for match in rule["matches"]]
    drive = ["/v1/drive", "/v1/drive-uploads"] if name == "one-machine" else []
    assert served == [{"type": "PathPrefix", "value": each} for each in (PREFIX, *drive)]
    (backend,) = rule["backendRefs"]
    ports = overlay.named("Service", backend["name"])["spec"]["ports"]
    assert backend["port"] in {each["port"] for each in ports}
    for kind in ("SnippetsPolicy", "ProxySettingsPolicy", "UpstreamSettingsPolicy"):
        (policy,) = overlay.kind(kind)
        for target in policy["spec"]["targetRefs"]:
            assert overlay.named(target["kind"], target["name"])


def test_on_one_machine_the_gateway_serves_the_folder_that_the_coordinator_means() -> None:
    overlay = render("one-machine")
    pod = overlay.named("Deployment", GATEWAY)["spec"]["template"]["spec"]
    coordinator = overlay.named("StatefulSet", COORDINATOR)["spec"]
    (container,) = pod["containers"]
    settings = {each["name"]: each.get("value") for each in container["env"]}
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "drive"]
    assert settings["SCAIMIND_DRIVE_DIR"] == mount["mountPath"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "drive"]
    [claim] = coordinator["volumeClaimTemplates"]
    name = f"{claim['metadata']['name']}-{COORDINATOR}-0"
    assert volume["persistentVolumeClaim"]["claimName"] == name
    # SCAIMIND_COORDINATOR_DRIVE_DIR is not set: it is `drive` in the data directory.
    [its] = coordinator["template"]["spec"]["containers"]
    environ = {each["name"]: each.get("value") for each in its["env"]}
    assert "SCAIMIND_COORDINATOR_DRIVE_DIR" not in environ
    [data] = [each for each in its["volumeMounts"] if each["name"] == claim["metadata"]["name"]]
    assert data["mountPath"] == environ["SCAIMIND_COORDINATOR_DATA_DIR"]
    assert mount["subPath"] == "drive"


def test_both_ingresses_find_the_job_in_the_same_way() -> None:
    values = yaml.safe_load((INGRESS / "controller-values.yaml").read_text())
    job = values["controller"]["config"]["http-snippet"]
    (policy,) = render("gateway-api").kind("SnippetsPolicy")
    (snippet,) = policy["spec"]["snippets"]
    assert snippet["value"].startswith(job)
    (upstream,) = render("gateway-api").kind("UpstreamSettingsPolicy")
    (ingress,) = render("ingress-nginx").kind("Ingress")
    hashed_by = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/upstream-hash-by"]
    assert upstream["spec"]["hashMethodKey"] == hashed_by


@pytest.mark.parametrize("name", ["ingress-nginx", "gateway-api"])
def test_prometheus_finds_the_metrics(name: str, paths: set[str]) -> None:
    overlay = render(name)
    monitor = overlay.named("ServiceMonitor", GATEWAY)["spec"]
    service = overlay.named("Service", GATEWAY)
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
    assert endpoint["path"] in paths


def test_prometheus_finds_the_coordinators_metrics() -> None:
    overlay = render_with("one-machine", "coordinator-monitoring")
    monitor = overlay.named("ServiceMonitor", COORDINATOR)["spec"]
    service = overlay.named("Service", COORDINATOR)
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
    (container,) = overlay.named("StatefulSet", COORDINATOR)["spec"]["template"]["spec"][
        "containers"
    ]
    environ = overlay.environ(container)
    del environ["SCAIMIND_COORDINATOR_API_SECRET_FILE"]
    environ["SCAIMIND_COORDINATOR_API_SECRET"] = "a-secret-of-16-or-more"
    config = CoordinatorConfig.from_env(environ)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert config.metrics_address == f"0.0.0.0:{ports['metrics']}"


def test_scaikeys_settings_are_taken_by_gateway_and_coordinator() -> None:
    overlay = render_with("one-machine", "scaikey")
    environ = overlay.environ(gateway_container(overlay))
    for name in [each for each in environ if each.endswith("_FILE")]:
        del environ[name]
        environ[name.removesuffix("_FILE")] = "a-secret-of-16-or-more"
    auth = Settings.from_env(environ).auth
    assert auth.token_url
    (container,) = overlay.named("StatefulSet", COORDINATOR)["spec"]["template"]["spec"][
        "containers"
    ]
    coordinator = overlay.environ(container)
    assert coordinator["SCAIMIND_COORDINATOR_JWKS_URL"] == auth.jwks_url
    assert coordinator["SCAIMIND_COORDINATOR_TOKEN_ISSUER"] == auth.issuer
    # Where there is no such coordinator, the gateway alone is patched.
    assert not render_with("gateway-api", "scaikey").kind("StatefulSet")


def blocks(language: str) -> list[str]:
    """The code of docs/kubernetes.md that is marked with a language."""
    text = (DEPLOY.parent / "docs/kubernetes.md").read_text()
    parts = re.split(r"^```(\w*)\n", text, flags=re.MULTILINE)
    return [code for mark, code in pairwise(parts) if mark == language]


def documented() -> list[list[str]]:
    """The shell commands of docs/kubernetes.md, as words."""
    return [shlex.split(line) for code in blocks("sh") for line in code.splitlines() if line]


@pytest.mark.parametrize("with_scaikey", [False, True])
def test_the_documented_overlay_can_be_rendered(tmp_path: Path, with_scaikey: bool) -> None:
    ours, *more = (yaml.safe_load(code) for code in blocks("yaml") if "overlays/ours" in code)
    (scaikey,) = (each for each in more if "../../components/scaikey" in each["components"])
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy/overlays/ours"
    folder.mkdir()
    if with_scaikey:
        ours = {**ours, **scaikey, "patches": ours["patches"] + scaikey["patches"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(ours))
    overlay = render_folder(folder)
    images = {container["image"] for container in overlay.containers()}
    assert {image.partition("@")[0].partition("/")[0] for image in images} == {
        "registry.ours.example"
    }
    assert not [image for image in images if "0" * 64 in image]
    texts = yaml.safe_dump_all(overlay.objects)
    assert "scaimind.ours.example" in texts
    assert "scaimind.example.com" not in texts
    assert "scaikey.example.com" not in texts
    assert ("scaikey.ours.example" in texts) is with_scaikey


def test_the_way_to_the_first_request_makes_every_secret_that_is_mounted() -> None:
    made: dict[str, set[str]] = {}
    for words in documented():
        if "create" in words and "secret" in words:
            at = words.index("secret")
            kind, name = words[at + 1 : at + 3]
            keys = {
                each.removeprefix("--from-file=").partition("=")[0]
                for each in words
                if each.startswith("--from-file=")
            }
            made.setdefault(name, set()).update({"tls"} if kind == "tls" else keys)
    overlay = render_with("one-machine", "scaikey")
    needed = {
        name.removeprefix("/run/secrets/scaimind/")
        for container in overlay.containers()
        for variable, name in overlay.environ(container).items()
        if variable.endswith("_FILE")
    }
    assert needed == made["scaimind-gateway"]
    (listener,) = overlay.named("Gateway", "scaimind")["spec"]["listeners"]
    (certificate,) = listener["tls"]["certificateRefs"]
    assert made[certificate["name"]] == {"tls"}


def test_the_commands_that_are_documented_exist() -> None:
    asked = []
    for words in documented():
        if "app" in words and "-m" in words:
            arguments = words[words.index("app") + 1 :]
            name = arguments[0]
            command = main.commands[name]
            if name == "keys":
                command, arguments = main.commands[name].commands[arguments[1]], arguments[1:]  # type: ignore[attr-defined]
            known = {option for each in command.params for option in each.opts}
            given = {each.partition("=")[0] for each in arguments[1:] if each.startswith("--")}
            assert given <= known
            asked.append(name)
    assert "keys" in asked


def test_everything_that_is_named_in_a_documented_command_is_there() -> None:
    overlay = render("one-machine")
    names = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in overlay.objects}
    for words in documented():
        for word in words:
            if re.fullmatch(r"(deployment|statefulset|job|gateway)/[a-z-]+", word):
                assert word in names, word
