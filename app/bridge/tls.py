"""TLS to the coordinator, mutual if the gateway has a certificate of its own."""

import ssl
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from app.bridge.settings import UpstreamSettings
from app.configuration.section import SettingsError

ChannelCredentials: TypeAlias = grpc.ChannelCredentials


def channel_credentials(settings: UpstreamSettings) -> ChannelCredentials | None:
    """Read the files that the settings name; None if the channel is to be plain text.

    To be called before the event loop runs. Raises `SettingsError` with one
    line for each file that cannot be used, and for a name that is missing, which
    gRPC itself would only tell as a coordinator that cannot be reached.
    """
    ca, cert, key = settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file
    if not (ca or cert or settings.tls_server_name):
        return None
    problems: list[str] = []
    roots = _read("tls_ca_file", ca, problems)
    chain = _read("tls_cert_file", cert, problems)
    private = _read("tls_key_file", key, problems)
    if "," in settings.address and not settings.tls_server_name:
        # gRPC would look for the addresses, as one name, in each certificate.
        problems.append(f"{_variable('tls_server_name')}: required with several addresses.")
    if not problems:
        _check(settings, problems)
    if problems:
        raise SettingsError(problems)
    return grpc.ssl_channel_credentials(roots, private, chain)


def server_name_options(settings: UpstreamSettings) -> list[tuple[str, Any]]:
    """Return the channel argument for the name that the coordinator's certificate must have."""
    name = settings.tls_server_name
    return [("grpc.ssl_target_name_override", name)] if name else []


def _read(name: str, path: str, problems: list[str]) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problems.append(f"{_variable(name)}: the file cannot be read: {error.strerror}.")
        return None


def _check(settings: UpstreamSettings, problems: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.tls_ca_file:
        try:
            context.load_verify_locations(settings.tls_ca_file)
        except ssl.SSLError:
            problems.append(f"{_variable('tls_ca_file')}: the file has no certificates (PEM).")
    if settings.tls_cert_file:
        try:
            # A key with a password would else be asked for at the terminal.
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            problems.append(
                f"{_variable('tls_cert_file')}, {_variable('tls_key_file')}: "
                + (
                    "the key does not match the certificate."
                    if mismatch
                    else "not a certificate chain and its key (PEM, without a password)."
                )
            )


def _variable(name: str) -> str:
    return UpstreamSettings.variable(name)
