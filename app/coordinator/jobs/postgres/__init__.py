"""The coordinator's state in PostgreSQL: its tables, and the steps that make them."""
