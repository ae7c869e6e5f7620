"""The house: imports go one way, there are no circles, the root stays small, nothing heavy loads before its time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sonic_ms

ROOT = Path(sonic_ms.__file__).parent
REPOSITORY = ROOT.parent

# From the ground up: a room may import from lower floors, from its own room, and never from a neighbour.
FLOORS = (
    ("errors",),
    ("options", "nn"),
    ("files",),
    ("runtime", "media"),
    ("face", "labels"),
    ("base", "edge"),
    ("convert", "deploy", "evaluate", "live"),
    ("pipeline",),
    ("data",),
    ("ascend", "serve", "train"),
    ("small",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
MOST_IN_THE_ROOT = 7


def modules():
    """{dotted name: path} of the package and of convert/, which belongs to it."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        found["sonic_ms." + ".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    for path in sorted((REPOSITORY / "convert").glob("*.py")):
        found[f"sonic_ms.convert.{path.stem}"] = path
    return found


def imports(path):
    """Modules of the package that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sonic_ms":
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("sonic_ms."))


def room(module):
    """Folder or root module of a dotted name. The commands of every room are the command line's."""
    parts = module.split(".")
    return "commands" if "commands" in parts[2:3] else parts[1]


def arrows():
    """(file, from, to) of every import between rooms."""
    for module, path in modules().items():
        if module == "sonic_ms.__init__":
            continue
        for target in imports(path):
            if target.startswith("sonic_ms.__"):
                continue
            start, end = room(module), room(target)
            if start != end:
                yield module, start, end


def test_imports_go_one_way():
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    wrong = [f"{module} imports {end}" for module, start, end in arrows() if height[end] >= height[start]]
    assert wrong == []


def test_the_service_stands_on_the_public_pipeline():
    """What makes videos is none of its business: with another model or engine it stays as it is."""
    allowed = {"pipeline", "options", "errors", "files", "labels", "media", "live"}
    seen = {(module, end) for module, start, end in arrows() if start == "serve"}
    assert seen and not {one for one in seen if one[1] not in allowed}


def test_there_are_no_circles_between_modules():
    known = modules()
    graph = {}
    for module, path in known.items():
        targets = set()
        for target in imports(path):
            name = target if target in known else target.rpartition(".")[0]
            targets |= {name} if name in known else set()
        graph[module] = targets - {module}
    done, circles = set(), []

    def visit(module, path):
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph[module]):
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    assert circles == []


def test_nothing_below_the_pipeline_names_a_model():
    """But the models themselves, and the converter of one of them. Names in docstrings are for people."""
    named = []
    for module, path in modules().items():
        height = next(floor for floor, names in enumerate(FLOORS) if room(module) in (*names, "__init__"))
        if height >= 7 or room(module) in ("edge", "base", "convert", "__init__"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.body[0].value) for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
                and isinstance(node.body[0], ast.Expr)}  # fmt: skip
        named += [f"{module}:{node.lineno}" for node in ast.walk(tree)
                  if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
                  and ("sonic-edge" in node.value or "sonic-base" in node.value)]  # fmt: skip
    assert named == []


def test_the_root_has_few_modules():
    names = sorted(path.name for path in ROOT.glob("*.py"))
    assert len(names) <= MOST_IN_THE_ROOT, names


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import sonic_ms", {"mindspore", "cv2", "numpy", "pydantic"}),
        ("from sonic_ms.cli import main; main(['-h'])", {"mindspore", "cv2", "numpy", "pydantic", "yaml"}),
        ("from sonic_ms.cli import main; main(['generate', '-h'])", {"mindspore", "cv2", "onnxruntime", "PIL"}),
        ("from sonic_ms.cli import main; main(['serve', '-h'])", {"mindspore", "cv2", "onnxruntime", "fastapi"}),
        ("from sonic_ms.cli import main; main(['batch', '-h'])", {"mindspore", "cv2", "onnxruntime", "fastapi"}),
        ("from sonic_ms.cli import main; main(['keys', '-h'])", {"mindspore", "cv2", "onnxruntime", "starlette"}),
        ("from sonic_ms.cli import main; main(['lint', '-h'])", {"mindspore", "cv2", "numpy", "pydantic"}),
        ("import sonic_ms.pipeline", {"mindspore", "cv2", "onnxruntime"}),
    ],
)
def test_nothing_heavy_is_imported_early(code, heavy):
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stderr.split())


def test_the_public_interface_is_typed():
    assert (ROOT / "py.typed").is_file()
