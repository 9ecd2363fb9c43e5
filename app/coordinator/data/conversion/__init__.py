"""Artefacts in other formats: what becomes of each file, read and written piece by piece.

Belongs here: file formats, and what is refused of them. Does not: processes, jobs, destinations.
"""
