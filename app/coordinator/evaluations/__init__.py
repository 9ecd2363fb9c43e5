"""Evaluations: benchmarks, the evaluator that runs them, and their results."""
