"""The job's records: found, read, chosen, recognised, checked, and made into tokens."""
