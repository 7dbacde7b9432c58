"""Tasks: prompts, answers and the metric that scores them, drawn from task files."""

import lazy_loader

# Without torch, which tokens are made of: what is named is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"task": ["Task"], "tokens": ["tokenize"]}
)
