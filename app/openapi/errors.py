"""The catalogue of errors as text: the reference that `docs/errors.md` holds."""

from collections.abc import Iterator

from app.errors import CATALOGUE

_INTRODUCTION = """\
# Errors

Every request that fails is answered with

```json
{"status": "error",
 "error": {"code": "...", "message": "...", "details": [...], "retry_after": 5},
 "meta": {"request_id": "..."}}
```

Branch on `code`: it is stable. `message` is for people, and often says more than the text below. \
`details` names each field that is not valid (`VALIDATION_ERROR`). `retry_after`, in seconds, is \
there where waiting helps, and is the header `Retry-After` too. `request_id` finds the request in \
the gateway's log. A stream that breaks off tells the `code` in its `error` event.

This page is what `python -m app errors` prints; which operation can answer with which of them is \
in the API's description (`python -m app openapi`).

| code | status | retry | meaning |
|---|---|---|---|
"""


def as_markdown() -> str:
    """Return the catalogue as Markdown, by status and code."""
    return _INTRODUCTION + "".join(_rows())


def _rows() -> Iterator[str]:
    for kind in sorted(CATALOGUE.values(), key=lambda kind: (kind.status, kind.code)):
        retry = "yes" if kind.retryable else ""
        yield f"| `{kind.code}` | {kind.status} | {retry} | {kind.text} |\n"
