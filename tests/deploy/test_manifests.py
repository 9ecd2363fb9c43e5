"""The manifests: valid for Kubernetes, and true of the program that they run."""

from copy import deepcopy
from dataclasses import fields
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # no stubs
import pytest
import yaml
from aiohttp import web
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]  # no stubs

from app.api.settings import ServerSettings
from app.cli.main import main
from app.coordinator import CoordinatorConfig
from app.gateway.routes import PREFIX, add_routes
from app.gateway.settings import SECTIONS, Settings
from app.hub.connection import Connection
from tests.deploy.ingress import INGRESS
from tests.deploy.rendered import OVERLAYS, Rendered, render

#: The newest release whose schemas are known, and the two before it.
RELEASES = sorted(set(all_versions()), key=lambda text: [*map(int, text.split("."))])[-3:]
#: Of these, no schema is at hand; what they refer to is checked below.
NO_SCHEMA = {
    "Gateway",
    "HTTPRoute",
    "PrometheusRule",
    "ProxySettingsPolicy",
    "ServiceMonitor",
    "SnippetsPolicy",
    "UpstreamSettingsPolicy",
}
GATEWAY = "scaimind-gateway"
COORDINATOR = "scaimind-coordinator"
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
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        own_users = name == COORDINATOR
        assert spec.get("hostUsers", True) is not own_users
        assert spec["securityContext"]["runAsNonRoot"] is not own_users
        profile = "Unconfined" if own_users else "RuntimeDefault"
        assert spec["securityContext"]["seccompProfile"] == {"type": profile}
        assert overlay.named("ServiceAccount", spec["serviceAccountName"])
        for container in spec["containers"]:
            rights = deepcopy(container["securityContext"])
            # In a user namespace of the pod's own: it gives each job a user.
            if own_users:
                assert rights.pop("procMount") == "Unmasked"
                assert set(rights["capabilities"].pop("add")) == CAPABILITIES
            assert rights == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            image, _, tag = container["image"].rpartition(":")
            assert image
            assert tag not in ("", "latest")


def test_their_commands_and_variables_are_those_of_the_program(overlay: Rendered) -> None:
    known = {"SCAIMIND_COORDINATOR_" + each.name.upper() for each in fields(CoordinatorConfig)}
    for section in SECTIONS.values():
        settings = {section.variable(each.name) for each in fields(section)}
        known |= settings | {f"{each}_FILE" for each in settings}
    for container in overlay.containers():
        (command,) = container["args"]
        assert command in main.commands
        assert overlay.environ(container).keys() <= known


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
            value for name, value in overlay.environ(container).items() if name.endswith("_FILE")
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


def test_the_gateway_api_objects_refer_to_each_other() -> None:
    overlay = render("gateway-api")
    route = overlay.named("HTTPRoute", GATEWAY)["spec"]
    (parent,) = route["parentRefs"]
    (listener,) = overlay.named("Gateway", parent["name"])["spec"]["listeners"]
    assert route["hostnames"] == [listener["hostname"]]
    (rule,) = route["rules"]
    (match,) = rule["matches"]
    assert match["path"] == {"type": "PathPrefix", "value": PREFIX}
    (backend,) = rule["backendRefs"]
    ports = overlay.named("Service", backend["name"])["spec"]["ports"]
    assert backend["port"] in {each["port"] for each in ports}
    for kind in ("SnippetsPolicy", "ProxySettingsPolicy", "UpstreamSettingsPolicy"):
        (policy,) = overlay.kind(kind)
        for target in policy["spec"]["targetRefs"]:
            assert overlay.named(target["kind"], target["name"])


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
