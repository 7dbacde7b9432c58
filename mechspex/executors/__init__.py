"""Executors: who measures masks. The store stays with the process that asks."""
