"""A job's metrics: lines, snapshots, and fewer points of a curve."""
