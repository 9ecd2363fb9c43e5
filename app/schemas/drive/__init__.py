"""Queries, headers and answers of the drive."""
