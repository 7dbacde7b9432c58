"""The best subsets of a set function, and of a model: integer programs, local search, gradients."""
