"""Tests of a coordinator whose drive is in an object store."""
