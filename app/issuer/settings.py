"""The issuer's settings."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, required_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings(Section):
    """The issuer's signing keys and the lifetime of its tokens."""

    PREFIX: ClassVar[str] = "SCAIMIND_ISSUER_"

    data_dir: str = setting("var/issuer", "Directory of the signing keys.")
    token_lifetime: int = setting(
        300, "Lifetime of tokens for ScaiDrive and ScaiAtlas.", at_least=5, at_most=3600
    )
    session_lifetime: int = setting(
        3600, "Lifetime of tokens for the gateway.", at_least=5, at_most=86_400
    )
    key_max_age: int = setting(
        30 * 86_400, "Age at which the next start replaces the signing key.", at_least=60
    )

    @property
    def longest_lifetime(self) -> int:
        """Seconds for which any token may live."""
        return max(self.token_lifetime, self.session_lifetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings(KeySettings):
    """The issuer for one machine."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8081, "Port to listen on; 0 picks a free one.", at_least=0, at_most=65535)
    name: str = setting("scaimind-local", "The `iss` claim of the tokens.")
    client_id: str = setting("scaimind-gateway", "Client that may exchange tokens.")
    client_secret: str = required_secret("The secret of that client.")
