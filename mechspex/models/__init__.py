"""Models: TransformerLens bridges, loaded by name, and the units they are made of."""
