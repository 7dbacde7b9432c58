"""Exact effects: sets of units ablated on the full model, and what repairs them."""
