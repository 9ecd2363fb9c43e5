"""`python -m scaimind`: the command."""

from scaimind.cli.main import main

if __name__ == "__main__":
    main()
