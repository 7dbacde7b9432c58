"""What a run is called that was given no name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

# Options that a run tells of itself.
_TOLD = ("model", "units", "layers", "ablation", "prompts", "dtype", "precision", "seed")


def run_name(about: str, configuration: Mapping[str, str]) -> str:
    """What it is about, and a digest of all that its values depend on.

    Args:
        about: what is asked, in a few words.
        configuration: what the value function is configured as.
    """
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    return f"{slug(about)}-{digest[:8]}"


def keep_options(run: str, task: str, options: object) -> None:
    """Write into a run what it was asked, for tables over many runs.

    Args:
        run: the name of the run.
        task: the name of its task.
        options: has an attribute for each option.
    """
    from mechspex.runs.run import EXPERIMENT, Run

    told = {"task": task, **{option: getattr(options, option) for option in _TOLD}}
    Run.open(run).write(EXPERIMENT, told)


def slug(about: str) -> str:
    """The beginning of the name of a run without a name.

    Args:
        about: what is asked, in a few words.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", about).strip("-._")
