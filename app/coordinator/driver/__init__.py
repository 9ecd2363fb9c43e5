"""The program that drives a cluster of Ray, put together; the coordinator starts it.

What it does is in `engines.ray`, and what its agents do with files in `execution.on_nodes`.
"""
