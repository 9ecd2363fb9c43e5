"""The manifests as kubectl renders them."""

import functools
import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(each.name for each in (DEPLOY / "overlays").iterdir())

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of an overlay."""

    objects: tuple[Manifest, ...]

    def kind(self, kind: str) -> list[Manifest]:
        return [each for each in self.objects if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Manifest:
        (found,) = (each for each in self.kind(kind) if each["metadata"]["name"] == name)
        return found

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """What pods are made of, with the name of what makes them; those of a RayCluster with
        their own."""
        for each in self.objects:
            if each["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield each["metadata"]["name"], each["spec"]["template"]
            elif each["kind"] == "RayCluster":
                for group in (each["spec"]["headGroupSpec"], *each["spec"]["workerGroupSpecs"]):
                    template = group["template"]
                    yield template["metadata"]["labels"]["app.kubernetes.io/name"], template

    def containers(self) -> Iterator[Manifest]:
        for _, pod in self.pods():
            yield from containers_of(pod)

    def environ(self, container: Manifest) -> dict[str, str]:
        """The variables of a container; what only a cluster knows is empty."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return found | {each["name"]: self._value(each) for each in container.get("env", ())}

    def _value(self, variable: Manifest) -> str:
        if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
            value = self.named("ConfigMap", reference["name"])["data"][reference["key"]]
        else:
            value = variable.get("value", "")
        return str(value)


def containers_of(pod: Manifest) -> list[Manifest]:
    """All containers of a pod, those that go on beside others included."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


@functools.cache
def render(overlay: str) -> Rendered:
    """Render an overlay, with the kubectl that the lock brings."""
    return render_folder(DEPLOY / "overlays" / overlay)


@functools.cache
def render_with(overlay: str, *components: str) -> Rendered:
    """Render an overlay with components beside its own, as an overlay of somebody's would."""
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes no absolute paths.
        root = os.path.relpath(DEPLOY, Path(folder).resolve())
        theirs = {
            "namespace": "scaimind",
            "resources": [f"{root}/overlays/{overlay}"],
            "components": [f"{root}/components/{each}" for each in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(theirs))
        return render_folder(Path(folder).resolve())


def render_folder(folder: Path) -> Rendered:
    """Render any kustomization."""
    kubectl = Path(sysconfig.get_path("scripts"), "kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(yaml.safe_load_all(done.stdout)))
