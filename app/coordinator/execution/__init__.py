"""Carries out the scheduler's instructions: prepares jobs, follows runs, exports artefacts.

What is decided about jobs is in `scheduling`.
"""
