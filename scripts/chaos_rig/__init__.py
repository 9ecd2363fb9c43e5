"""What `scripts/chaos` runs: experiments around real processes, and the count of what they cost.

Everything listens on the loopback, lives in a temporary folder and ends with
the run, however that ends.
"""
