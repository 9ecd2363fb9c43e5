"""The issuer's signing keys: one that signs, and those that signed before it.

A replaced signing key is published from the next start on, for as long as its tokens
live: an issuer that runs meanwhile goes on signing with it.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

BITS = 2048
ALGORITHM = "RS256"
_FILE = "keys.json"
#: Seconds for which a retired key is served beyond the last token that it signed: clocks differ.
_SLACK = 600


class KeysUnusable(Exception):
    """The file of keys cannot be used: one line that says why."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A key that signs no more, public."""

    jwk: dict[str, Any]
    #: Seconds since 1970; None until the first start that no longer signs with it.
    served_until: float | None


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """What the file holds. Times are seconds since 1970."""

    current: RSAKey
    made_at: float
    retired: tuple[Retired, ...]

    @classmethod
    def load(
        cls, folder: Path, *, now: float, max_age: float, longest_lifetime: float
    ) -> "SigningKeys":
        """Read the keys for a start; make the first one, or a new one if it is too old.

        A key that is no longer used stays served for as long as a token that
        it signed can live. Raises `KeysUnusable`.
        """
        keys = cls._read(folder)
        if keys is None:
            keys = cls(_make(), now, ())
        elif now - keys.made_at >= max_age:
            keys = keys._rotated(now)
        until = now + longest_lifetime + _SLACK
        served = tuple(
            replace(each, served_until=each.served_until or until)
            for each in keys.retired
            if each.served_until is None or each.served_until > now
        )
        keys = cls(keys.current, keys.made_at, served)
        keys._write(folder)
        return keys

    @classmethod
    def rotate(cls, folder: Path, *, now: float) -> "SigningKeys":
        """Make a new key for the next start, beside an issuer that runs. Raises `KeysUnusable`."""
        keys = cls._read(folder)
        keys = cls(_make(), now, ()) if keys is None else keys._rotated(now)
        keys._write(folder)
        return keys

    @property
    def kid(self) -> str:
        """The current key's id: its thumbprint (RFC 7638)."""
        return self.current.thumbprint()

    def public(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517, 5), newest first."""
        return {"keys": [_public(self.current), *(each.jwk for each in self.retired)]}

    def _rotated(self, now: float) -> "SigningKeys":
        # An issuer that runs may sign with it until it is started again.
        retired = Retired(_public(self.current), None)
        return SigningKeys(_make(), now, (retired, *self.retired))

    @classmethod
    def _read(cls, folder: Path) -> Self | None:
        path = folder / _FILE
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysUnusable(f"{path} cannot be read: {error.strerror}") from None
        try:
            held = json.loads(text)
            return cls(
                RSAKey.import_key(held["current"]),
                float(held["made_at"]),
                tuple(Retired(each["jwk"], each["served_until"]) for each in held["retired"]),
            )
        except (JoseError, ValueError, TypeError, KeyError):
            raise KeysUnusable(
                f"{path} does not contain signing keys. Remove it to create new ones."
            ) from None

    def _write(self, folder: Path) -> None:
        """Write the file whole or not at all, for its owner's eyes alone."""
        held = {
            "current": self.current.as_dict(private=True),
            "made_at": self.made_at,
            "retired": [
                {"jwk": each.jwk, "served_until": each.served_until} for each in self.retired
            ],
        }
        beside = folder / f".{_FILE}.{os.getpid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(held, file)
                file.flush()
                os.fsync(descriptor)
            beside.replace(folder / _FILE)
        except OSError as error:
            raise KeysUnusable(f"{folder} cannot be written to: {error.strerror}") from None


def _make() -> RSAKey:
    return RSAKey.generate_key(BITS)


def _public(key: RSAKey) -> dict[str, Any]:
    public: dict[str, Any] = dict(key.as_dict(private=False))
    return {**public, "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}
