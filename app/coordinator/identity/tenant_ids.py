"""What a tenant can be called. The settings of every program import it, and so nothing of gRPC."""

import re
from typing import Final

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")
