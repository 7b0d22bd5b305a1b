"""Plug-ins: found by their entry points, imported when asked for, refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.registry import METHODS_GROUP, TASKS_GROUP, Registry

GROUP = "quanta_bench_tests.shapes"


class Shape:
    name = "shape"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Packages(tmp_path, monkeypatch)


class Packages:
    """Installed packages, as ``importlib.metadata`` sees them: one module and its entry points."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch

    def add(self, name: str, code: str, **points: str) -> None:
        info = self._root / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        (self._root / f"{name}.py").write_text(code)
        # The import of a module that a test may make is undone with the test.
        self._monkeypatch.delitem(sys.modules, name, raising=False)


def shapes(base: type | None = Shape) -> Registry[type[Shape]]:
    return Registry(GROUP, "shape", base)


def circle(name: str = "circle") -> str:
    # A test module has no name that another module could import it by, so classes are made from
    # one that is everywhere.
    return f"class Circle(Exception):\n    name = {name!r}\n"


def test_names_are_sorted_and_import_nothing(packages: Packages) -> None:
    code = "raise AssertionError('imported')"
    packages.add("lazy_shapes", code, square="lazy_shapes:S", circle="lazy_shapes:C")
    registry = shapes()
    assert registry.names() == list(registry) == ["circle", "square"]
    assert "circle" in registry
    assert "cube" not in registry
    assert registry.origin("circle") == "lazy_shapes 1.0"
    assert "lazy_shapes" not in sys.modules


def test_a_plug_in_is_imported_once_and_kept(packages: Packages) -> None:
    packages.add("good_shapes", circle(), circle="good_shapes:Circle")
    registry = shapes(Exception)
    first = registry.get("circle")
    del sys.modules["good_shapes"]
    assert registry.get("circle") is first


def test_an_unknown_name_is_met_with_the_nearest(packages: Packages) -> None:
    packages.add("near_shapes", "", circle="near_shapes:C", square="near_shapes:S")
    with pytest.raises(UsageError, match=r"no shape called 'circel'\. Did you mean 'circle'\?"):
        shapes().get("circel")
    with pytest.raises(UsageError, match=r"no shape called 'x'\. Known: circle, square\."):
        shapes().origin("x")


def test_an_empty_group_says_that_it_is_empty() -> None:
    with pytest.raises(UsageError, match="Known: none"):
        Registry("quanta_bench_tests.nothing", "thing").get("x")


def test_two_packages_with_one_name_collide_and_both_are_named(packages: Packages) -> None:
    packages.add("first_shapes", circle(), circle="first_shapes:C", square="first_shapes:Circle")
    packages.add("other_shapes", "", circle="other_shapes:C")
    registry = shapes(None)
    with pytest.raises(BenchError, match="packages register a shape called 'circle'") as caught:
        registry.get("circle")
    assert "first_shapes (first_shapes:C)" in str(caught.value)
    assert "other_shapes (other_shapes:C)" in str(caught.value)
    # What does not use the name works.
    assert registry.names() == ["circle", "square"]
    assert registry.get("square").__name__ == "Circle"
    assert set(registry.origin("circle").split(", ")) == {"first_shapes 1.0", "other_shapes 1.0"}


def test_usable_plug_ins_and_the_reasons_of_the_others(packages: Packages) -> None:
    packages.add("good_shapes", circle(), circle="good_shapes:Circle")
    packages.add("bad_shapes", "raise RuntimeError('kaboom')", cube="bad_shapes:Cube")
    packages.add("quit_shapes", "import sys; sys.exit(0)", cone="quit_shapes.deep:Cone")
    found, reasons = shapes(Exception).usable()
    assert list(found) == ["circle"]
    assert set(reasons) == {"cube", "cone"}
    assert "bad_shapes 1.0) cannot be imported: RuntimeError: kaboom" in reasons["cube"]
    assert "quit_shapes 1.0) cannot be imported: SystemExit: 0" in reasons["cone"]
    assert shapes().packages() == {"good_shapes", "bad_shapes", "quit_shapes"}


def test_one_target_listed_twice_is_no_collision(packages: Packages) -> None:
    packages.add("same_shapes", "", circle="same_shapes:C")
    packages.add("again_shapes", "", circle="same_shapes:C")
    assert shapes().names() == ["circle"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError: module 'broken_shapes' has no attribute 'Circle'"),
    ],
)
def test_a_broken_plug_in_names_its_package_and_the_error(
    packages: Packages, code: str, said: str
) -> None:
    packages.add("broken_shapes", code, circle="broken_shapes:Circle", fine="json:JSONDecodeError")
    registry = shapes(None)
    with pytest.raises(BenchError) as caught:
        registry.get("circle")
    assert "'circle' (broken_shapes:Circle, from broken_shapes 1.0) cannot be" in str(caught.value)
    assert said in str(caught.value)
    # One broken plug-in is no reason to refuse another.
    assert registry.get("fine").__name__ == "JSONDecodeError"


def test_the_wrong_base_class_is_refused(packages: Packages) -> None:
    packages.add("wrong_shapes", circle(), circle="wrong_shapes:Circle", pi="math:pi")
    for name in ("circle", "pi"):
        with pytest.raises(BenchError, match=r"is not a subclass of .*\.Shape\."):
            shapes().get(name)


def test_a_class_that_calls_itself_otherwise_is_refused(packages: Packages) -> None:
    packages.add("odd_shapes", circle("ellipse"), circle="odd_shapes:Circle")
    with pytest.raises(BenchError, match=r"calls itself 'ellipse'\. Use one name in both places"):
        shapes(Exception).get("circle")


def test_without_a_base_class_anything_goes(packages: Packages) -> None:
    packages.add("any_shapes", "circle = 3.14", circle="any_shapes:circle")
    assert shapes(None).get("circle") == 3.14


@pytest.mark.parametrize("group", [METHODS_GROUP, TASKS_GROUP])
def test_the_built_ins_come_through_entry_points_of_this_project(group: str) -> None:
    registry: Registry[object] = Registry(group, "plug-in")
    assert {registry.origin(name).split()[0] for name in registry} == {"quanta-bench"}


def test_repr_is_the_constructor_call() -> None:
    assert repr(Registry("a.b", "thing")) == "Registry(group='a.b', noun='thing')"
