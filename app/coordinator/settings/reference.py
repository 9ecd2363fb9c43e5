"""The configuration as text: the page `docs/coordinator.md`, the annotated file in it."""

import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from app.coordinator.settings.coordinator import FILE_VARIABLE, PREFIX, CoordinatorConfig, is_secret

_INTRODUCTION: Final = f"""\
# Configuration of the one-machine coordinator

`python -m app coordinator --config coordinator.toml` runs it alone. The file can be named by
`{FILE_VARIABLE}` instead, or be left out. A setting's environment variable is
`{PREFIX}` and its name in capitals, and wins over the file; a list is joined by what
the table tells. Times are seconds, sizes are bytes or texts such as `512MiB`. A value that cannot
be used, or a key that does not exist, stops the start with a line that names it. Changes take
effect at the next start; running jobs save a checkpoint and go on.

This page is what `python -m app settings --coordinator` prints.

## Settings

| key | default | meaning |
|---|---|---|
"""
_FILE: Final = """
## The file

Every setting with its default; `#` before a key means that it is not set.

```toml
"""
_TLS: Final = """\
```

## Listening for a gateway elsewhere

    [coordinator's machine]                        [gateway's machine]
    address = "0.0.0.0:50051"                      SCAIMIND_COORDINATOR_ADDRESS=coordinator:50051
    listen_tls_cert_file = "server.crt"            SCAIMIND_COORDINATOR_TLS_CA_FILE=ca.crt
    listen_tls_key_file = "server.key"
    listen_tls_client_ca_file = "ca.crt"           SCAIMIND_COORDINATOR_TLS_CERT_FILE=client.crt
                                                   SCAIMIND_COORDINATOR_TLS_KEY_FILE=client.key
    api_secret_file = "secret"                     SCAIMIND_COORDINATOR_API_SECRET_FILE=secret

The third line asks for mutual TLS and can be left out. Without the first two the secret and all
data cross the network in plain text; an address that is not loopback then gets a warning.
"""


def as_markdown() -> str:
    """The page."""
    rows = "".join(f"{row}\n" for row in _rows())
    return f"{_INTRODUCTION}{rows}{_FILE}{as_toml()}{_TLS}"


def as_toml() -> str:
    """The file, annotated; it says nothing but the defaults."""
    return "\n".join(_lines())


def _rows() -> Iterator[str]:
    for setting in fields(CoordinatorConfig):
        about = setting.metadata
        text = about["text"]
        if about["separator"]:
            text += f" In the variable joined by `{about['separator']}`."
        if is_secret(setting):
            text += f" `{setting.name}_file` names a file to read it from."
        yield f"| `{setting.name}` | {_default(setting)} | {text} |"


def _default(setting: "Field[Any]") -> str:
    if setting.name == "data_dir":
        return "`var/coordinator`"
    if setting.default is MISSING:
        return "*required*"
    return f"`{setting.default}`" if setting.default not in (None, "", 0, ()) else ""


def _lines() -> Iterator[str]:
    for setting in fields(CoordinatorConfig):
        about = setting.metadata
        yield from (f"# {line}" for line in textwrap.wrap(about["text"], 78))
        if is_secret(setting):
            yield f'# {setting.name} = "..."'
            yield f'# {setting.name}_file = "/run/secrets/{setting.name}"'
        elif about["example"]:
            example = f'"{about["example"]}"'
            yield f"# {setting.name} = {f'[{example}]' if about['separator'] else example}"
        else:
            default = setting.default
            value = f'"{default}"' if isinstance(default, str) else str(default)
            yield f"{setting.name} = {value}"
        yield ""
