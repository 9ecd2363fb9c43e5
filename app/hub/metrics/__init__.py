"""A job's metric snapshots, and who watches them."""
