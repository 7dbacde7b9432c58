"""Circuits: the small set of units that carries a behaviour, its scores and its roles."""
