"""What importing the package brings along, seen from a fresh process."""

import ast
import json
import subprocess
import sys

from running import ROOT, launch


def modules_after(statement):
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_networks_need_jax_and_flax_and_nothing_else():
    baseline = {name.partition(".")[0] for name in modules_after("import jax, flax.linen")}
    ours = {
        name.partition(".")[0] for name in modules_after("from resnet_jax.models import ResNet")
    }
    assert ours - baseline - set(sys.stdlib_module_names) == {"resnet_jax"}
    rooms = {name for name in modules_after("import resnet_jax") if name.startswith("resnet_jax.")}
    assert not {
        name
        for name in rooms
        if name.split(".")[1] in ("data", "training", "commands", "config", "run")
    }


def test_the_command_line_loads_no_tensorflow_no_torch_and_nothing_that_draws():
    loaded = modules_after("import launch, resnet_jax.commands.report")
    heavy = {"tensorflow", "torch", "tensorflow_datasets", "sklearn", "matplotlib", "jinja2"}
    assert not heavy & loaded


def test_the_package_shows_what_is_public():
    import resnet_jax

    shown = {name for name in dir(resnet_jax) if not name.startswith("_")}
    assert shown == set(resnet_jax.__all__)
    assert launch("--version").stdout.startswith(f"resnet_jax {resnet_jax.__version__}, jax ")


# room -> the rooms that it may import from, each below it in the house
BELOW = {"fields", "errors", "files", "crc", "seeds"}
MAY_IMPORT = {
    "ops": set(),
    "distributed": BELOW,
    "models": BELOW | {"ops"},
    "data": BELOW | {"distributed"},
    "training": BELOW | {"distributed", "ops"},
    "config": BELOW | {"data", "models", "training"},
}


def imports_of(path):
    """Yields the modules of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resnet_jax"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("resnet_jax"))


def test_imports_run_down_the_house_only():
    wrong = []
    for path in (ROOT / "resnet_jax").rglob("*.py"):
        room = path.relative_to(ROOT / "resnet_jax").parts[0].removesuffix(".py")
        for module in imports_of(path):
            target = module.split(".")[1] if "." in module else "__init__"
            allowed = MAY_IMPORT.get(room)
            if (allowed is not None and target not in allowed | {room}) or (
                allowed is None and room not in ("commands", "__main__") and target == "commands"
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_ops_import_jax_alone():
    for path in (ROOT / "resnet_jax" / "ops").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
        # jaxtyping is for type checkers alone.
        assert foreign <= {"jax", "numpy", "resnet_jax", "jaxtyping"}, path


def test_functions_and_files_stay_readable():
    for path in sorted((ROOT / "resnet_jax").rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= 330, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, (path, node.name)
