"""The one channel to the coordinator, held open for the life of the process."""

import json
from typing import Any, TypeAlias

import grpc

from app.bridge.contract.unknown_fields import UnknownFields
from app.bridge.settings import UpstreamSettings
from app.bridge.tls import ChannelCredentials, server_name_options
from app.bridge.transport.direct_channel import DirectChannel, DirectReads, has_one_address
from app.bridge.transport.reading_channel import ReadingChannel

Channel: TypeAlias = grpc.aio.Channel

#: The contract that the gateway speaks, with its version.
CONTRACT = "mindcoordinator.v1"
SERVICE = f"{CONTRACT}.MindCoordinator"

#: Calls that may be repeated without a second effect, and that are over at once:
#: WatchJob is neither, its reader resumes it at the right offset.
IDEMPOTENT_READS = (
    "GetJob",
    "ListJobs",
    "ListCheckpoints",
    "GetJobMetrics",
    "ListJobLogs",
    "GetLogMarks",
    "GetClusterStatus",
    "ListNodes",
    "GetNode",
    "GetQueueStatus",
    "GetEvaluation",
    "GetDataCache",
)

#: A status arrives as metadata. gRPC's 8 KiB would turn a long detail, such as
#: a traceback, into a RESOURCE_EXHAUSTED of the client's own making.
MAX_METADATA_BYTES = 64 * 1024


def open_channel(
    settings: UpstreamSettings,
    *,
    credentials: ChannelCredentials | None = None,
    unknown_fields: UnknownFields | None = None,
) -> Channel:
    """Open the channel; it connects at the first call. The caller closes it.

    To be called on the running event loop, after any fork. Without
    `credentials` it is plain text. `unknown_fields` reads every answer.
    """
    options = channel_options(settings) + server_name_options(settings)
    target = target_of(settings.address)
    channel: Channel
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=options)
        if settings.direct_reads and has_one_address(settings.address):
            channel = DirectChannel(
                channel,
                reads=DirectReads(settings),
                methods=[f"/{SERVICE}/{method}" for method in IDEMPOTENT_READS],
            )
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    if unknown_fields is None:
        return channel
    return ReadingChannel(channel, prefix=f"/{SERVICE}/", reader_of=unknown_fields.reader_of)


def channel_options(settings: UpstreamSettings) -> list[tuple[str, Any]]:
    """Return gRPC's channel arguments (grpc/impl/channel_arg_names.h) for these settings."""
    return [
        ("grpc.service_config", json.dumps(service_config(settings))),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_retries", 1),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout)),
        # Both time-outs bound the same ping; the longer one would count.
        ("grpc.http2.ping_timeout_ms", _ms(settings.keepalive_timeout)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", _ms(settings.reconnect_min)),
        # Whatever its name says, it bounds one attempt to connect, and delays none.
        (
            "grpc.min_reconnect_backoff_ms",
            _ms(max(settings.connect_timeout, settings.reconnect_min)),
        ),
        ("grpc.max_reconnect_backoff_ms", _ms(settings.reconnect_max)),
        # gRPC asks DNS again after 30 s at the earliest, longer than a
        # coordinator takes to come back at another address.
        ("grpc.dns_min_time_between_resolutions_ms", _ms(settings.reconnect_max)),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        # The coordinator is a neighbour; a proxy variable would break even localhost.
        ("grpc.enable_http_proxy", 0),
    ]


def target_of(address: str) -> str:
    """Return gRPC's name (grpc/doc/naming.md) of one address, or of several IP addresses."""
    if "," not in address:
        return address
    addresses = [each.strip() for each in address.split(",")]
    return f"{'ipv6' if addresses[0].startswith('[') else 'ipv4'}:{','.join(addresses)}"


def service_config(settings: UpstreamSettings) -> dict[str, Any]:
    """Say how calls are retried, and which of several coordinators gets them."""
    config = _retries(settings)
    if "," in settings.address or settings.address.startswith("dns:"):
        # One leads, and the others' health says that they do not serve (gRFC A17). A call goes
        # to those that do, as soon as they do. The empty name is the health of the whole
        # program: it is known where the service's is not.
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": ""}
    return config


def _retries(settings: UpstreamSettings) -> dict[str, Any]:
    """Retry idempotent reads while the coordinator is UNAVAILABLE (gRFC A6).

    The pauses are random between 0 and 0.1, 0.2, 0.4 ... 1 s; all attempts
    share the deadline of the call.
    """
    if settings.read_attempts < 2:
        return {}
    return {
        "methodConfig": [
            {
                "name": [{"service": SERVICE, "method": method} for method in IDEMPOTENT_READS],
                "retryPolicy": {
                    "maxAttempts": settings.read_attempts,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # When half of the reads fail, further ones are not multiplied.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
