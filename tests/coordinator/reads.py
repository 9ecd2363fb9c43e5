"""How much of its files the coordinator reads."""

import os

import pytest


class Reads:
    """Counts the bytes that `os.pread` gives from now on, until the monkeypatch is undone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 0
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, file: int, size: int, at: int) -> bytes:
        data = self._pread(file, size, at)
        self.size += len(data)
        return data
