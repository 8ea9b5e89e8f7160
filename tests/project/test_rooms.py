"""The order of the rooms: no import runs back up, not even for a type checker, or in a circle."""

import ast
import pathlib
import re

import pytest
from run_support import ROOT

PACKAGE = "lensjax"
# From the ground up; ARCHITECTURE.md says what belongs in each.
ORDER = (
    ("errors", "prng", "interfaces", "arguments", "signals"),
    ("files",),
    ("devices",),
    ("diffusion",),
    ("data",),
    ("models",),
    ("metrics",),
    ("config",),
    ("run",),
    ("inference",),
    ("training",),
    ("evaluation",),
    ("cli",),
    ("main", ""),  # "" is the package itself
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


def _modules(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the files of a package by the names they are imported by."""
    found = {}
    for path in sorted((folder / PACKAGE).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: pathlib.Path, modules: dict[str, pathlib.Path]) -> set[str]:
    """Returns the modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by dots"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else str(node.module))
    return found & modules.keys()


def _room(module: str) -> str:
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules of a circle, an empty list where there is none."""
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if circle := walk(other, [*trail, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := walk(module, []))), [])


def faults(folder: pathlib.Path) -> list[str]:
    """Returns what breaks the order of the rooms in a package."""
    modules = _modules(folder)
    graph = {name: _imports(path, modules) - {name} for name, path in modules.items()}
    unknown = sorted({_room(name) for name in modules} - FLOOR.keys())
    if unknown:
        return [f"{room} has no place in the order" for room in unknown]
    # The __init__ of a room brings its files, which may import one another past it.
    inner = {
        name: {other for other in others if not (_room(name) and name.startswith(f"{other}."))}
        for name, others in graph.items()
    }
    upward = [
        f"{name} imports {other}, which comes later"
        for name, others in sorted(inner.items())
        for other in sorted(others)
        if FLOOR[_room(other)] > FLOOR[_room(name)]
    ]
    circle = _circle(inner)
    return upward + ([" -> ".join(circle)] if circle else [])


def test_no_import_runs_back_up_and_none_in_a_circle():
    assert faults(ROOT) == []


# Files of a small package, each with an import that breaks the order, and what is said of it.
PLANTED = {
    "data/scaling.py": (
        "from lensjax.run import workdir",
        "lensjax.data.scaling imports lensjax.run.workdir, which comes later",
    ),
    "metrics/noise.py": (
        "def f():\n    from lensjax.config import Config",
        "lensjax.metrics.noise imports lensjax.config, which comes later",
    ),
    "files/npy.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lensjax.main",
        "lensjax.files.npy imports lensjax.main, which comes later",
    ),
    "diffusion/paths.py": (
        "from lensjax.diffusion.losses import make_loss_fn",
        "lensjax.diffusion.losses -> lensjax.diffusion.paths -> lensjax.diffusion.losses",
    ),
    "attic/old.py": ("", "attic has no place in the order"),
}


def test_a_planted_import_is_found(tmp_path):
    sound = dict.fromkeys(("main.py", "run/workdir.py", "config/__init__.py", *PLANTED), "")
    del sound["attic/old.py"]
    sound["diffusion/losses.py"] = "def f():\n    import lensjax.diffusion.paths"
    for name, (line, fault) in {"": ("", ""), **PLANTED}.items():
        folder = tmp_path / (name or "sound").replace("/", "_")
        for file, text in (sound | ({name: line} if name else {})).items():
            path = folder / PACKAGE / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert faults(folder) == ([fault] if name else [])


def test_few_files_stand_beside_the_rooms():
    beside = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_file()}
    assert beside == {
        "__init__.py",
        "arguments.py",
        "errors.py",
        "interfaces.py",
        "main.py",
        "prng.py",
        "py.typed",
        "signals.py",
    }


def test_every_room_says_in_a_sentence_what_belongs_there():
    overview = (ROOT / "ARCHITECTURE.md").read_text()
    for room in (room for rooms in ORDER for room in rooms if room):
        path = ROOT / PACKAGE / room
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
        assert docstring.partition("\n\n")[0].endswith("."), room
        assert f"`{room}" in overview


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_place_that_a_page_names_is_there(page):
    """Paths such as `data/catalogue.py`, and constants beside the file that has them."""
    text = (ROOT / page).read_text()
    rooms = "|".join(room for rooms in ORDER for room in rooms if room)
    places = re.findall(rf"`((?:{rooms})/[\w*/]+?)(?:\.py)?`", text)
    assert len(set(places)) > 10
    for place in places:
        here = [*(ROOT / PACKAGE).glob(f"{place}.py"), *(ROOT / PACKAGE).glob(place)]
        assert here, place
    for name, place in re.findall(r"`(\w+)`(?:,| and `\w+`)? in `([\w/]+\.py)`", text):
        file = next(path for path in (ROOT / PACKAGE / place, ROOT / place) if path.exists())
        assert name in file.read_text(), (name, place)


def test_tests_mirror_the_rooms():
    """A test file lies in the folder of a room and is named after a module of it."""
    modules = {name.removeprefix(f"{PACKAGE}.").replace(".", "/") for name in _modules(ROOT)}
    elsewhere = ("project", "end_to_end", "benchmarks", "support")
    strays = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        name = path.relative_to(ROOT / "tests").with_suffix("").as_posix()
        room, _, stem = name.rpartition("/test_") if "/" in name else ("", "", name[5:])
        parts = stem.split("_")
        stems = {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
        here = {f"{room}/{one}".lstrip("/") for one in stems}
        if room.partition("/")[0] not in elsewhere and not here & modules:
            strays.append(name)
    assert strays == []
