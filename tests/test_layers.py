"""The layers of the package: imports point down, and the two halves never meet below the seam."""

import ast
import subprocess
import sys
from pathlib import Path

import mechspex

PACKAGE = Path(mechspex.__file__).parent

# From the bottom up; a module imports from its own layer and from those below it.
LAYERS = [
    {"errors"},
    {"units", "masks", "bch"},
    {"spex_design"},
    {"indices", "set_function", "scores", "paired", "metric_names", "toml_lines",
     "recipe_format", "recipes", "smollm2", "models", "metrics", "tasks", "drawing", "bridge",
     "products", "references", "masked_forward", "twin", "short_forward",
     "batch_size", "batched_forward"},
    {"decoders", "values", "runs"},
    {"roles", "executors", "evidence", "link", "structure", "adaptive", "local_search",
     "subset_program", "subset", "climbing"},
    {"recovery", "circuit_search"},
    {"validation", "search", "truth", "subset_rounds"},
    {"answers"},
    {"screening", "circuit_scores", "circuit"},
    {"explanation", "circuit_references", "comparison", "circuits_by_size", "pruned",
     "repair_map"},
    {"workflow", "ablation_sweep", "circuit_discovery", "pruning"},
    {"repair"},
    {"figures", "bench"},
    {"cli"},
]  # fmt: skip
MATHEMATICS = {"bch", "spex_design", "indices", "set_function", "scores", "paired", "decoders",
               "evidence", "link", "structure", "adaptive", "recovery", "local_search",
               "subset_program", "subset", "circuit_search", "climbing"}  # fmt: skip
MODELS = {"metric_names", "toml_lines", "recipe_format", "recipes", "smollm2", "models", "metrics",
          "tasks", "drawing", "bridge", "products", "references", "masked_forward", "twin",
          "short_forward", "batch_size", "batched_forward", "values", "executors",
          "runs", "roles"}  # fmt: skip


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


LIBRARY = {m: i for m, i in modules().items() if concept(m) not in {"__init__", "tiny"}}


def test_every_module_has_a_layer():
    assert {concept(module) for module in LIBRARY} == set().union(*LAYERS)


def test_imports_point_down():
    level = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    up = [
        f"{module} imports {name}"
        for module, imported in LIBRARY.items()
        for name in own_imports(imported)
        if name in level and level[name] > level[concept(module)]
    ]
    assert not up


def test_mathematics_and_models_never_import_each_other():
    crossing = [
        f"{module} imports {name}"
        for module, imported in LIBRARY.items()
        for name in own_imports(imported)
        if (concept(module) in MATHEMATICS and name in MODELS)
        or (concept(module) in MODELS and name in MATHEMATICS)
    ]
    assert not crossing


def test_mathematics_needs_no_torch():
    assert not [
        module
        for module, imported in LIBRARY.items()
        if concept(module) in MATHEMATICS | {"units", "masks", "errors", "runs"}
        and any(name.split(".")[0] in {"torch", "transformers"} for name in imported)
    ]


def test_models_is_the_only_importer_of_transformer_lens():
    importers = {
        module
        for module, imported in LIBRARY.items()
        if any(name.split(".")[0] == "transformer_lens" for name in imported)
    }
    assert importers == {"models"}


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


def test_everything_public_exists_and_is_documented():
    for name in mechspex.__all__:
        assert getattr(mechspex, name).__doc__, name
    assert mechspex.__all__ == sorted(mechspex.__all__) == list(mechspex._HOMES)
    assert set(mechspex.__all__) <= set(dir(mechspex))
    # Importing a module would put it in the place of a function of its name.
    assert not set(mechspex.__all__) & {concept(module) for module in LIBRARY}
