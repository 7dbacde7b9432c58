"""Functions of sets of units: terms, bases, indices, structure, and how well they predict."""
