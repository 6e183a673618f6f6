"""What no single module can promise: the direction of imports, who knows Ray, what a wheel contains."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import e3dge_video

ROOT = Path(e3dge_video.__file__).parent.parent
PACKAGE = ROOT / "e3dge_video"
#: Packages from left to right; within a group they may know each other.
LAYERS = [
    {"errors", "config"},
    {"geometry", "io"},
    {"heads", "sample"},
    {"faces"},
    {"models"},
    {"weights"},
    {"inversion"},
    {"training", "evaluation"},
    {"pipelines"},
    {"cli"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
#: Heavy or optional: modules that load without them are imported where they are not installed.
OPTIONAL = {"anny", "decord", "face_alignment", "ray", "lpips", "tensorboardX", "trimesh", "embreex", "skimage"}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module, those behind the links included."""
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for name in sorted(files):
            if name.endswith(".py"):
                path = Path(folder) / name
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


MODULES = dict(modules())
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports: a module has one name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    """First name below `e3dge_video`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "e3dge_video" and len(parts) > 1 else None


def test_imports_flow_one_way() -> None:
    wrong = []
    for name, tree in TREES.items():
        own = package_of(name)
        if own is None:  # the package itself names what is public
            continue
        assert own in LAYER, f"{name}: which layer is {own}?"
        for imported in imports(tree):
            other = package_of(imported)
            if other in LAYER and LAYER[other] > LAYER[own]:
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_the_test_sees_a_wrong_import() -> None:
    assert list(imports(ast.parse("def f():\n from e3dge_video.cli import main"))) == ["e3dge_video.cli.main"]
    assert LAYER["cli"] > LAYER[package_of("e3dge_video.io.mux") or ""]


def test_one_module_knows_ray() -> None:
    users = {name for name, tree in TREES.items() for imported in imports(tree) if imported.split(".")[0] == "ray"}
    assert users == {"e3dge_video.pipelines.core.rayexec"}


def test_pipelines_have_one_name() -> None:
    for name, tree in TREES.items():
        assert not any(imported.split(".")[0] in ("pipelines", "configs") for imported in imports(tree)), name


def test_optional_packages_are_imported_where_they_are_used() -> None:
    """Not at the top of a module, `rayexec` excepted, which is itself imported only when Ray is asked for."""
    wrong = []
    for name, tree in TREES.items():
        if name == "e3dge_video.pipelines.core.rayexec":
            continue
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {imported.split(".")[0] for node in top for imported in imports(node)} & OPTIONAL
        wrong += [f"{name} imports {package} at its top" for package in found]
    assert wrong == []


def test_the_library_does_not_print() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    ]
    assert wrong == []


def test_public_names_are_documented() -> None:
    wrong = []
    for name, tree in TREES.items():
        if tree.body and not ast.get_docstring(tree):
            wrong.append(name)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                wrong += [] if ast.get_docstring(node) else [f"{name}.{node.name}"]
    assert wrong == []


def test_no_paths_of_somebodys_machine() -> None:
    own = re.compile(r"(?<![\w.])/(home|root|Users|work|mnt|private)/\w|[A-Z]:\\\\?Users\\")
    texts = {".py", ".md", ".yaml", ".toml", ".json", ".txt", ".sh", ""}
    skipped = {".git", ".venv", "golden", "__pycache__"}
    wrong = []
    for top in ("e3dge_video", "pipelines", "configs", "scripts", "tests", ".ci", "docs", "README.md", "CHANGELOG.md",
                "pyproject.toml"):  # fmt: skip
        start = ROOT / top
        files = [start] if start.is_file() else [path for path in start.rglob("*") if path.is_file()]
        for path in files:
            if path.suffix in texts and not skipped & set(path.parts) and path != Path(__file__):
                try:
                    lines = path.read_text(encoding="utf-8").splitlines()
                except UnicodeDecodeError:
                    continue
                wrong += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if own.search(line)]
    assert wrong == []


def test_light_workers_do_not_load_torch() -> None:
    """Three of the four workers of a run start in a fraction of a second because of this."""
    stages = "prep", "encode", "scan", "clip"
    code = f"import sys\nfor stage in {stages}: __import__(f'e3dge_video.pipelines.stages.{{stage}}')\n"
    code += "sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    pytest.importorskip("hatchling", reason="building a wheel without network needs hatchling: pip install hatchling")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, timeout=300)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_wheel_is_complete(wheel: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return {name for name in found if not any(part.startswith((".", "__pycache__")) for part in name.split("/"))}

    assert {path.name for path in wheel.iterdir()} == {"e3dge_video", next(wheel.glob("*.dist-info")).name}
    for name in ("pipelines", "configs"):
        assert files(wheel / "e3dge_video" / name) == files(ROOT / name), name
        assert files(ROOT / name)
    for name in ("bundles", "sample", "weights"):
        assert files(wheel / "e3dge_video" / name) == files(PACKAGE / name), name


def test_wheel_works_beside_other_folders_of_these_names(wheel: Path, tmp_path: Path) -> None:
    """An installed package must not care what lies in the user's directory."""
    for name in ("pipelines", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong folder')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(wheel)

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Turn a talking-head video into a 4D portrait" in python("-m", "e3dge_video.cli.main", "--help")
    code = (
        "import e3dge_video.pipelines.graph as graph\n"
        "from e3dge_video.config.load import config_root\n"
        "print(graph.__file__)\n"
        "print(*[path for path in config_root().rglob('*.yaml') if path.read_text()])\n"
    )
    module, configs = python("-c", code).splitlines()
    assert module == str(wheel / "e3dge_video" / "pipelines" / "graph.py")
    assert configs.split() and all(path.startswith(str(wheel)) for path in configs.split())
