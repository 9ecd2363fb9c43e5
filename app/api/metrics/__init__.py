"""Metrics for pictures: arrays for each number, and many jobs in one answer."""
