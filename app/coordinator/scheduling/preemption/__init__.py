"""Who is stopped for whom, and what is promised to whom meanwhile."""
