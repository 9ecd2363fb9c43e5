"""Reads that identical requests share."""
