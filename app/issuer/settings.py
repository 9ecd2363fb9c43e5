"""The issuer's settings."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, required_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings(Section):
    """The issuer's signing keys, and how long its tokens live."""

    PREFIX: ClassVar[str] = "SCAIMIND_ISSUER_"

    data_dir: str = setting("var/issuer", "Where the signing keys are kept.")
    token_lifetime: int = setting(
        300, "How long tokens for ScaiDrive and ScaiAtlas live.", at_least=5, at_most=3600
    )
    session_lifetime: int = setting(
        3600, "How long tokens for the gateway live.", at_least=5, at_most=86_400
    )
    key_max_age: int = setting(
        30 * 86_400, "Age from which the signing key is replaced at the next start.", at_least=60
    )

    @property
    def longest_lifetime(self) -> int:
        """Seconds for which any token may live."""
        return max(self.token_lifetime, self.session_lifetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings(KeySettings):
    """The issuer for one machine."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8081, "Port to listen on; 0 takes a free one.", at_least=0, at_most=65535)
    name: str = setting("scaimind-local", "The tokens' iss.")
    client_id: str = setting("scaimind-gateway", "Who may exchange tokens.")
    client_secret: str = required_secret("The secret of that client.")
