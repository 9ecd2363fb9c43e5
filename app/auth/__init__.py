"""Who calls, and what they may do: verifiers, tickets, rate limits, revocations, token exchange.

Not here: key sets and API keys, which other programs read too (`scaikey`).
"""
