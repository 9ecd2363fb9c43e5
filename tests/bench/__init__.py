"""The check that holds the benchmarks to a baseline."""
