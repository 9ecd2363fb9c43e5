"""The bucket and the store of the tests of `app.objects`."""

from tests.objects.conftest import bucket, prefix, store

__all__ = ["bucket", "prefix", "store"]
