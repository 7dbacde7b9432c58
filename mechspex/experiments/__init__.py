"""Figures of the literature measured again, and decoders on models whose truth is known."""

import lazy_loader

# Each experiment stands in a file of its name and is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
