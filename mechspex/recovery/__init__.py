"""Recovery: decode masks and values, and say how sure each term is."""
