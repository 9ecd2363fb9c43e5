"""`python -m scaimind_trainers`: train the job of the environment, or print the schema."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
