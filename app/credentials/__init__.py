"""What a credential is, and what is shown and logged in its place.

One table of names and one of forms, for the variables of jobs, for answers and
for logs, in the gateway, the coordinator and the issuer alike, so that none
shows what another one hides. So this room imports nothing of theirs.
"""

from app.credentials.masking import MASK, Masker, found_in, is_value_of, masked
from app.credentials.variables import is_credential, shown_value

__all__ = ["MASK", "Masker", "found_in", "is_credential", "is_value_of", "masked", "shown_value"]
