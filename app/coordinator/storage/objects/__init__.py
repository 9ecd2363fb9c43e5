"""A drive that is no directory: objects under keys, and trees of them that are there as a whole.

Which job or tenant a key belongs to is decided above.
"""
