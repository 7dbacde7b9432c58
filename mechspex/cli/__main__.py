"""``python -m mechspex.cli``."""

from mechspex.cli import main

if __name__ == "__main__":
    main()
