"""Content codings of streams: what several watchers get is encoded once.

Not here: who gets the same, and when.
"""
