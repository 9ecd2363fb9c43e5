"""Programs that tests start and that neither Python nor the lock brings."""

import os
import shutil

import pytest

#: The package of Debian that has a program, where it has another name.
_PACKAGES = {"promtool": "prometheus", "unshare": "util-linux", "setpriv": "util-linux"}


def program(name: str, *others: str) -> str:
    """Return the path of a program, by the first name that is there; skips the test without it.

    `scripts/test --install` has Debian install what is missing.
    """
    # nginx is on the PATH of root alone.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    for each in (name, *others):
        if found := shutil.which(each, path=path):
            return found
    pytest.skip(f"{name} is not installed: apt-get install {_PACKAGES.get(name, name)}")
