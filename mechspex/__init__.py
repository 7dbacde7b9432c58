"""mechspex: which parts of a language model act together, from as few ablations as possible."""

import lazy_loader

__version__ = "0.1.0"

# The public names stand in `__init__.pyi`. Each is imported when it is first used: the model
# libraries take seconds to load, and much of what is asked here needs none of them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
