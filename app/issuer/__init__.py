"""ScaiKey for one machine: signs short-lived tokens and publishes the keys that verify them.

A program of its own. Not here: how tokens are verified (`scaikey`, `auth`).
"""
