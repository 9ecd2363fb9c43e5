"""The engine for this machine: runners and the processes of runs.

This package is imported by the runner at each start: it stays without imports.
"""
