"""The overlay for a Ray cluster whose data are in S3."""

from typing import Any

import pytest

from tests.deploy.rendered import Rendered, render
from tests.deploy.test_ray_overlay import config, container, gateway, pod


@pytest.fixture
def s3() -> Rendered:
    return render("ray-s3")


def mounted_secret(overlay: Rendered, name: str, of: str) -> tuple[str, Any]:
    """Where a container of a pod has the drive's credentials, and the volume."""
    [mount] = [
        each
        for each in container(overlay, of)["volumeMounts"]
        if each["name"] == "drive-credentials"
    ]
    assert mount["readOnly"]
    [volume] = [
        each for each in pod(overlay, name)["spec"]["volumes"] if each["name"] == mount["name"]
    ]
    return mount["mountPath"], volume["secret"]


def gibibytes(text: str) -> int:
    assert text.endswith("Gi"), text
    return int(text[:-2]) << 30


def test_a_drive_in_s3_needs_no_volume_that_machines_share(s3: Rendered) -> None:
    for claim in s3.kind("PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for name in ("ray-worker", "gateway"):
        volumes = pod(s3, name)["spec"]["volumes"]
        assert not [each for each in volumes if "persistentVolumeClaim" in each]
    # The one volume of both coordinators is on one machine.
    affinity = pod(s3, "coordinator")["spec"]["affinity"]
    (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = pod(s3, "coordinator")["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    assert "podAntiAffinity" not in affinity


def test_all_have_the_credentials_of_s3_as_the_same_file(s3: Rendered) -> None:
    coordinator = config(s3)
    assert coordinator.drive_url.startswith("s3://")
    assert coordinator.drive_endpoint
    assert not coordinator.ray_shared_disk
    file = coordinator.drive_credentials_file
    assert file is not None
    drive = gateway(s3).drive
    assert (drive.url, drive.endpoint, drive.credentials_file) == (
        *(coordinator.drive_url, coordinator.drive_endpoint),
        file,
    )
    # The gateway is no root, and has it by its group.
    for name, mode in (("coordinator", 0o400), ("ray-worker", 0o400), ("gateway", 0o440)):
        path, secret = mounted_secret(s3, name, name)
        assert str(file.parent) == path
        assert [each["path"] for each in secret["items"]] == [file.name]
        assert secret["defaultMode"] == mode
    # As variables every process of the pod would have them.
    assert "AWS" not in str([each.get("env", ()) for each in s3.containers()])


def test_what_is_fetched_from_s3_is_bounded_below_the_volumes_it_is_on(s3: Rendered) -> None:
    coordinator = config(s3)
    for name, of, path, share in (
        ("ray-worker", "ray-worker", coordinator.ray_node_dir, 1),
        ("coordinator", "coordinator", coordinator.drive_root, coordinator.validation_workers),
    ):
        [mount] = [
            each for each in container(s3, of)["volumeMounts"] if each["mountPath"] == str(path)
        ]
        [volume] = [
            each for each in pod(s3, name)["spec"]["volumes"] if each["name"] == mount["name"]
        ]
        limit = gibibytes(volume["emptyDir"]["sizeLimit"])
        assert share * coordinator.cache_bytes < limit
        assert limit < gibibytes(container(s3, of)["resources"]["limits"]["ephemeral-storage"])
