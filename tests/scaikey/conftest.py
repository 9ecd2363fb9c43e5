"""The identity provider of tests/auth."""

from tests.auth.conftest import auth, clock, issuer, session

__all__ = ["auth", "clock", "issuer", "session"]
