"""The coordinator's side of an engine whose runs are on other machines.

It speaks with the engine's driver by the contract of `mindcoordinator.internal.v1`,
and knows nothing of the cluster behind it. It is the only writer of the jobs'
logs and metrics: it takes over what the nodes have recorded, each line once.
"""
