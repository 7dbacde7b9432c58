"""The small model that ships with mechspex: a two-layer attention-only induction model."""
