"""Everything on one machine: PostgreSQL, the coordinator and the gateway behind one command."""
