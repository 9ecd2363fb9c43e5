"""The nodes, their GPUs and what is free on them.

Who is placed where is decided in `scheduling`.
"""
