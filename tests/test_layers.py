"""The layers of the package: imports point down, and the two halves never meet below the seam."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import mechspex

PACKAGE = Path(mechspex.__file__).parent

# From the bottom up, a row a floor; a package imports from itself and from the floors below.
FLOORS = [
    {"core"},
    {"figures"},
    {"errors", "set_functions", "runs", "models", "training"},
    {"decoders", "subsets", "effects", "executors", "tasks", "forward"},
    {"recovery", "screening", "components"},
    {"attribution", "explanation", "circuits", "truth", "prompts"},
    {"experiments"},
    {"report"},
    {"cli"},
]
MATHEMATICS = {"set_functions", "decoders", "subsets", "recovery"}
MEASUREMENT = {"runs", "effects", "screening"}
MODELS = {"models", "tasks", "forward", "components", "prompts", "training"}


def modules() -> dict[str, set[str]]:
    """{module, as a path inside the package: everything it imports, dotted}."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[path.relative_to(PACKAGE).with_suffix("").as_posix()] = imported
    return found


def concept(module: str) -> str:
    return module.split("/")[0]


def own_imports(imported: set[str]) -> set[str]:
    return {name.split(".")[1] for name in imported if name.startswith("mechspex.")}


# `models/tiny` trains the model that ships, and is no part of the library.
LIBRARY = {
    module: imported
    for module, imported in modules().items()
    if module not in {"__init__", "__main__"} and not module.startswith("models/tiny/")
}


DOCUMENTED = PACKAGE.parent / "docs" / "architecture.md"
README = PACKAGE.parent / "README.md"


def test_the_documentation_shows_these_floors():
    rows = re.findall(r"^\| (\d) \| (.*) \|$", DOCUMENTED.read_text(), re.M)
    floors = [set(re.findall(r"`(\w+)`", packages)) for _, packages in rows]
    assert floors == FLOORS[::-1]
    for height, names in enumerate(FLOORS, 1):
        (shown,) = re.findall(rf"^{height}  (.*)$", README.read_text(), re.M)
        assert names <= set(re.findall(r"\w+", shown))


def test_every_package_has_a_floor():
    assert {concept(module) for module in LIBRARY} == set().union(*FLOORS)
    assert {path.stem for path in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "errors"}


def test_imports_point_down():
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    up = [
        f"{module} imports {name}"
        for module, imported in LIBRARY.items()
        for name in own_imports(imported) & set(floor)
        if name != concept(module) and floor[name] >= floor[concept(module)]
    ]
    assert not up


def crossing(those: set[str], others: set[str]) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, imported in LIBRARY.items()
        for name in own_imports(imported)
        if concept(module) in those and name in others
    ]


def test_mathematics_and_models_never_import_each_other():
    assert not crossing(MATHEMATICS, MODELS | MEASUREMENT)
    assert not crossing(MODELS, MATHEMATICS | MEASUREMENT)


def test_measurement_knows_no_model():
    assert not crossing(MEASUREMENT, MODELS)


def test_mathematics_and_measurement_need_no_torch():
    assert not [
        module
        for module, imported in LIBRARY.items()
        if concept(module) in MATHEMATICS | MEASUREMENT | {"core", "errors"}
        and any(name.split(".")[0] in {"torch", "transformers"} for name in imported)
    ]


def test_models_is_the_only_importer_of_transformer_lens():
    importers = {
        module
        for module, imported in LIBRARY.items()
        if any(name.split(".")[0] == "transformer_lens" for name in imported)
    }
    assert importers == {"models/load_model"}


def test_no_pickle_anywhere():
    banned = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "torch.load", "diskcache"}
    assert not {module for module, imported in modules().items() if imported & banned}
    assert not [p for p in PACKAGE.rglob("*.py") if "torch.load(" in p.read_text()]


def test_light_imports_load_no_model_library():
    code = """if True:
        import sys
        from mechspex.cli import app
        for command in (["tasks"], ["status"]):
            app(command, standalone_mode=False)
        print(*sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ioi" in done.stdout
    assert not {"torch", "transformers", "sklearn", "pandas"} & set(done.stdout.split())


def test_explaining_a_plain_function_and_reading_answers_load_no_model_library(tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        import mechspex as mx

        def soup(masks):
            return masks[:, 0] + 2 * (masks[:, 1] & masks[:, 2])

        units, run = mx.parts(["flour", "water", "salt"]), Path(sys.argv[1]) / "soup"
        answer = mx.explain(soup, units=units, run=run)
        assert mx.explain(soup, units=units, run=run).cost.measured == 0
        assert str(mx.Explanation.load(run))
        circuit = mx.Circuit(units, (0, 1), answer.configuration)
        circuit.save(run / "circuit.json")
        assert mx.Circuit.load(run / "circuit.json").members == (0, 1)
        print(*sys.modules)
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mechspex.circuits.circuit" in loaded
    assert not {"torch", "transformers", "transformer_lens", "sklearn", "matplotlib"} & loaded


def test_everything_public_exists_and_is_documented():
    for name in mechspex.__all__:  # pyright: ignore[reportAttributeAccessIssue]
        assert getattr(mechspex, name).__doc__, name
    assert mechspex.__all__ == sorted(mechspex.__all__)  # pyright: ignore[reportAttributeAccessIssue]
    assert set(mechspex.__all__) <= set(dir(mechspex))  # pyright: ignore[reportAttributeAccessIssue]
    # Importing a package would put it in the place of a function of its name.
    packages = {concept(module) for module in LIBRARY}
    assert {n for n in mechspex.__all__ if n in packages} == {  # pyright: ignore[reportAttributeAccessIssue]
        "decoders", "errors", "experiments", "figures", "truth"
    }  # fmt: skip
