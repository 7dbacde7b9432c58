"""SPEX: the sparse transform with error-correcting codes, its design of masks and its decoder."""
