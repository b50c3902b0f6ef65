"""Import closures of the project, read from the syntax tree: what a stage's result can depend on.

Run `python tests/closure.py` to write the closures into the `deps` of dvc.yaml.
"""

import ast
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

ROOT = Path(__file__).parent.parent
PACKAGES = ("xmodal", "stages")


def module_file(module: str) -> Path | None:
    """Return the file of a module of the project relative to its root, or None when it is no module of ours."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """Return every dotted name that the file imports, at the top or inside a function; `from a import b` gives both."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


@cache
def own_imports(path: Path) -> frozenset[Path]:
    """Return the project's files that importing `path` runs, with the packages they lie in."""
    files: set[Path] = set()
    for name in imported_modules(path):
        if name.split(".")[0] not in PACKAGES:
            continue
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            file = module_file(".".join(parts[:length]))
            if file is not None:
                files.add(file)
    return frozenset(files)


def closure(path: Path) -> set[Path]:
    """Return `path` and every file of the project that it imports, directly or not."""
    found: set[Path] = set()
    pending = [path]
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            pending.extend(own_imports(file))
    return found


def code_deps(stage: str) -> list[str]:
    """Return the sorted code dependencies of a stage; empty package files carry nothing and are left out."""
    files = closure(Path("stages") / f"{stage}.py")
    return sorted(str(file) for file in files if file.name != "__init__.py" or imported_modules(file))


def main() -> None:
    """Write the code dependencies of every stage into dvc.yaml, other dependencies first."""
    yaml = YAML()
    yaml.width = 118
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(ROOT / "dvc.yaml")
    for name, entry in pipeline["stages"].items():
        stage = entry.get("do", entry)
        others = [dep for dep in stage["deps"] if not str(dep).endswith(".py")]
        deps = CommentedSeq([*others, *code_deps(name)])
        deps.fa.set_flow_style()
        stage["deps"] = deps
    yaml.dump(pipeline, ROOT / "dvc.yaml")


if __name__ == "__main__":
    main()
