"""Which content coding a stream has."""

from app.hub.coding.gzip_stream import GzipStream
from app.hub.settings import HubSettings


def coding_of(settings: HubSettings, *, gzip: bool) -> GzipStream | None:
    """Return the coding of a stream whose client prefers gzip, or does not; None is none."""
    return GzipStream() if gzip and settings.compression == "gzip" else None
