"""A job's records while its run is on other machines: what the nodes have recorded comes in, and
is written."""
