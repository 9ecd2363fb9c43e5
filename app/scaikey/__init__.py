"""ScaiKey's keys and tokens, for every program: key sets, API keys, permissions.

Who calls the gateway is decided in `auth`.
"""
