"""Where a job's files are, and the formats that they are kept in."""
