"""Object stores, as the coordinator, its nodes and the gateway's drive use them: objects under
keys, and trees of them that are there as a whole.

Which job or tenant a key belongs to is decided above.
"""
