"""The order of what waits, and the rules of queues and tenants."""
