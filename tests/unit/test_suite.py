"""The suite itself: tiers, skips, the draw for CI, and tests that are found by the name of their module."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.draw import BUDGET_SECONDS, drawn, full_files
from tests.plugins import skips
from tests.plugins.durations import recorded_durations
from tests.plugins.tiers import TIERS
from tests.system.faults.commands import shard

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests").rglob("test_*.py"))

# Modules that are tested where they meet others, most of them twins, of which one is to go.
WITHOUT_OWN_TESTS = {
    "userrep.tiles.arrow_rows",
    "userrep.tiles.column_paths",
    "userrep.tiles.by_spark",
    "userrep.joins.read_vectors",
}


def marks_of(node: ast.expr) -> list[str]:
    """Return the tiers that an expression of marks names."""
    return [found.attr for found in ast.walk(node) if isinstance(found, ast.Attribute) and found.attr in TIERS]


def file_tiers(tree: ast.Module) -> list[str]:
    """Return the tiers that ``pytestmark`` names."""
    return [
        tier
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        for tier in marks_of(node.value)
    ]


def decorator_tiers(tree: ast.Module) -> list[str]:
    """Return the tiers that decorators of single tests, and of their parameters, name."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [tier for function in functions for decorator in function.decorator_list for tier in marks_of(decorator)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_names_its_tier_and_single_tests_may_only_be_full(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tiers = file_tiers(tree)
    assert len(tiers) == 1, "pytestmark names one tier: pytest.mark.fast, .default or .full"
    assert set(decorator_tiers(tree)) <= {"full"}


def test_fast_tests_may_start_neither_a_process_nor_spark(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import multiprocessing, subprocess
        import pytest
        from pyspark.sql import SparkSession

        @pytest.mark.fast
        @pytest.mark.parametrize("start", [
            lambda: subprocess.run(["true"]),
            lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
            lambda: SparkSession.builder.getOrCreate(),
        ])
        def test_it(start):
            start()
        """
    )
    ran = pytester.runpytest_inprocess("-p", "tests.plugins.tiers")
    ran.assert_outcomes(failed=3)
    ran.stdout.fnmatch_lines(["*a fast test may start neither a process nor a Spark session*"])


def test_only_absent_shared_data_is_a_reason_to_skip_a_default_test_after_set_up() -> None:
    assert skips.ALLOWED == (r"^shared data is absent: ",)
    assert skips.is_allowed("shared data is absent: online_retail_ii", "default")
    assert not skips.is_allowed("no redis-server, and shared data is absent: ml100k", "default")
    assert not skips.is_allowed("this machine has no CUDA device", "default")
    assert skips.is_allowed("this machine has no CUDA device", "full")


@pytest.mark.parametrize(
    ("option", "outcome"),
    [((), {"skipped": 3, "passed": 1}), (("--strict-skips",), {"skipped": 1, "errors": 2, "passed": 1})],
)
def test_strict_skips_fail_each_skip_for_another_reason(
    pytester: pytest.Pytester, option: tuple[str, ...], outcome: dict[str, int]
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def server():
            pytest.skip("no server")

        def test_in_set_up(server): ...

        @pytest.mark.skipif(True, reason="no browser")
        def test_by_mark(): ...

        def test_allowed():
            pytest.skip("shared data is absent: a log")

        def test_that_runs(): ...
        """
    )
    ran = pytester.runpytest_inprocess("-p", "tests.plugins.skips", *option)
    ran.assert_outcomes(**outcome)


@pytest.mark.parametrize("num_shards", [1, 3, 10, 16])
def test_shards_have_all_cases_and_each_has_one_at_least(monkeypatch: pytest.MonkeyPatch, num_shards: int) -> None:
    cases, shards = range(10), []
    for number in range(1, num_shards + 1):
        monkeypatch.setenv("SHARD", f"{number}/{num_shards}")
        shards.append(shard(cases))
    assert all(shards)
    assert {case for selected in shards for case in selected} == set(cases)


def test_a_draw_fills_the_budget_and_follows_from_the_seed() -> None:
    seconds = {f"test_{k}.py": 60.0 + k for k in range(20)} | {"test_too_long.py": 301.0}
    files = drawn(seconds, "seed", 300)
    assert files == drawn(dict(reversed(seconds.items())), "seed", 300)
    assert 300 - 79 < sum(seconds[file] for file in files) <= 300
    assert {file for seed in range(200) for file in drawn(seconds, str(seed), 300)} == set(seconds) - {
        "test_too_long.py"
    }


def test_every_file_of_the_full_tier_is_short_enough_to_be_drawn() -> None:
    recorded = recorded_durations()
    files = full_files()
    assert "tests/system/faults/test_killed_pipelines.py" in files
    assert "tests/unit/test_suite.py" not in files
    assert [file for file in files if recorded.get(file, {}).get("full", 0.0) > BUDGET_SECONDS] == [], "split these"


def modules_with_logic() -> dict[str, ast.Module]:
    """Return modules that define a function with a branch, a loop or a comprehension."""
    branches = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.comprehension, ast.BoolOp)
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "userrep").rglob("*.py"))
        if path.name != "__init__.py"
    }
    functions = {name: [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] for name, tree in trees.items()}
    return {
        name: trees[name]
        for name, defined in functions.items()
        if any(isinstance(node, branches) for function in defined for node in ast.walk(function))
    }


def names_of_tests(module: str) -> set[str]:
    """Return the names that a module's test file may have: ``a.b.c`` is tested by test_c, test_b_c or test_a_b_c."""
    parts = module.split(".")
    return {f"test_{'_'.join(parts[k:])}" for k in range(len(parts))}


def test_every_module_with_logic_has_tests_that_are_found_by_its_name() -> None:
    stems: dict[str, set[str]] = defaultdict(set)  # by the folder that the package has for them; flows and system: all
    for file in FILES:
        kind, *folders, _ = file.relative_to(ROOT / "tests").parts
        stems[folders[0] if kind == "unit" and folders else kind].add(file.stem)
    missing = set()
    for name in modules_with_logic():
        _, *folders, _ = name.split(".")
        if not names_of_tests(name) & (stems[folders[0] if folders else "unit"] | stems["flows"] | stems["system"]):
            missing.add(name)
    assert missing - WITHOUT_OWN_TESTS == set()
    assert missing >= WITHOUT_OWN_TESTS, "these have tests now"
