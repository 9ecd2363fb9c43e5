"""Everything on one machine behind one command: PostgreSQL, issuer, coordinator, gateway.

Not here: what those programs do.
"""
