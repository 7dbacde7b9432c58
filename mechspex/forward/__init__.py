"""The forward pass of a model without its bridge, as fast as the machine allows."""
