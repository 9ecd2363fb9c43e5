"""What operators see: structured logs and Prometheus metrics.

Not here: when something is logged or counted.
"""
