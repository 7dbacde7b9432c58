"""``python -m mechspex.cli``, the same as ``python -m mechspex``."""

from mechspex.cli import main

if __name__ == "__main__":
    main()
