"""Ends all processes of a run: by their descent, by their user id, or by a mark that they carry."""
