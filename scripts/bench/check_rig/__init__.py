"""What `scripts/bench/check` runs: short forms of the benchmarks, held to a baseline."""
