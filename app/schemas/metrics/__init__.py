"""Queries and answers about metrics."""
