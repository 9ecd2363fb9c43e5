"""What is asked of a log, and what is answered: filters, positions, searches."""
