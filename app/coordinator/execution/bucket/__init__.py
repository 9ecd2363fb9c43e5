"""What the coordinator does for jobs whose drive is an object store, and whose runs are elsewhere.

Their nodes prepare them, and bring away what they write (`execution.on_nodes`).
"""
