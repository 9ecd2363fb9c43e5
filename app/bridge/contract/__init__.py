"""The border: every message of the coordinator is checked by its contract before it is used.

Checks are pure; they raise `app.errors.BrokenContract`. What the contract leaves
open passes: enum values of a newer contract (0 to 255), fields that this version
does not know, a tenant that is left out.
"""
