"""`make fast`: the tests of the mathematics do without torch."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def collected(*folders: str) -> subprocess.CompletedProcess[str]:
    """Collect the tests below some folders, in a process of their own, and refuse torch."""
    command = [sys.executable, "-m", "pytest", "--override-ini=addopts=", "--import-mode=importlib"]
    command += ["--collect-only", "--quiet", "--no-torch", "-p", "no:cacheprovider", *folders]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tests_of_the_mathematics_load_no_torch():
    folders = re.search(r"(?m)^FAST := (.*)$", (ROOT / "Makefile").read_text())
    assert folders
    assert {"core", "set_functions", "decoders", "subsets", "recovery"} <= {*folders[1].split()}
    done = collected(*(f"tests/{name}" for name in folders[1].split()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_best_subset" in done.stdout


def test_a_test_that_loads_torch_is_told(tmp_path):
    """A module of its name will do, and takes no seconds to load."""
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "test_heavy.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport torch\n"
    )
    done = collected("tests/core/test_units.py", str(tmp_path / "test_heavy.py"))
    assert "torch was loaded" in done.stdout + done.stderr
    assert done.returncode != 0
