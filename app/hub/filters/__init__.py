"""Filters of watchers: where their entries are judged, and how many there may be."""
