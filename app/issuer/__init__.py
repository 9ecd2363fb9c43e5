"""ScaiKey for one machine: signs short-lived tokens, and serves the keys to check them by."""
