"""The part of KubeRay's RayCluster (ray.io/v1) that the manifests use, stated by hand.

From the types of KubeRay 1.4 to 1.6 (`ray-operator/apis/ray/v1/raycluster_types.go`) and its
validation. A template is a PodTemplateSpec, which Kubernetes' own schema covers.
"""

from typing import Any

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


#: Options of `ray start` that the operator may be given. It refuses `labels` from 1.5 on.
_START = {
    "type": "object",
    "propertyNames": {
        "enum": [
            *("num-cpus", "num-gpus", "memory", "resources", "object-store-memory"),
            *("include-dashboard", "node-manager-port", "object-manager-port", "port"),
        ]
    },
    "additionalProperties": {"type": "string"},
}
_TEMPLATE = _object(["metadata", "spec"], metadata={"type": "object"}, spec={"type": "object"})

SPEC = _object(
    ["headGroupSpec"],
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object(
        [],
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=_COUNT,
        image={"type": "string"},
        imagePullPolicy={"type": "string"},
        env={"type": "array"},
        envFrom={"type": "array"},
        volumeMounts={"type": "array"},
        resources={"type": "object"},
        securityContext={"type": "object"},
    ),
    headGroupSpec=_object(
        ["rayStartParams", "template"],
        serviceType={"type": "string"},
        rayStartParams=_START,
        template=_TEMPLATE,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName={"type": "string"},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            numOfHosts=_COUNT,
            labels=_TEXTS,
            rayStartParams=_START,
            template=_TEMPLATE,
        ),
    },
)
