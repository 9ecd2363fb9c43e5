"""A job's log: lines, entries, and how they are read."""
