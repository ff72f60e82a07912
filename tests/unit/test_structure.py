"""How the code is laid out: which way imports point, what is kept out of which folder, what is never used."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "userrep"
MODULES = sorted(PACKAGE.rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))

# A module imports from lines below its own, or from its own line's package. One line holds what never meets.
ORDER = [
    "cli",
    "workflows",
    "report",
    "operations evaluation monitoring erasure explanations",
    "client",
    "audiences",
    "streaming",
    "joins",
    "spaces",
    "tracking",
    "inference",
    "training",
    "model",
    "features",
    "items",
    "synthetic",
    "tiles",
    "sources",
    "store",
    "spark",
    "config",
    "logs",
    "failpoints ids utc",
    "errors",
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names.split()}


def part_of(module: Path) -> str:
    """Return the first part of a module's name below the package: its folder, or itself."""
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(module: Path) -> list[tuple[int, str]]:
    """Return (line, dotted name) of all imports of a module, those within functions and for types included."""
    found = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def where(module: Path, line: int) -> str:
    return f"{module.relative_to(ROOT)}:{line}"


def uses(folder: str, *libraries: str) -> list[str]:
    return [
        f"{where(module, line)} imports {name}"
        for module in MODULES
        if part_of(module) == folder
        for line, name in imported(module)
        if name.split(".")[0] in libraries
    ]


def test_every_module_has_its_place_in_the_order() -> None:
    unknown = {part_of(module) for module in MODULES} - {*RANK, "__init__"}
    assert not unknown, f"give {', '.join(sorted(unknown))} a line in ORDER"


def test_the_order_is_that_of_the_tree_in_the_design() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = page.split("```")[1].removeprefix("text")
    folders = re.findall(r"^(\w+) ", tree, re.MULTILINE)
    assert sorted(folders, key=RANK.__getitem__) == folders
    assert set(folders) == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}


def test_imports_only_point_down_the_order() -> None:
    wrong = []
    for module in MODULES:
        mine = part_of(module)
        for line, name in imported(module):
            package, _, rest = name.partition(".")
            theirs = rest.split(".")[0]
            both_known = package == "userrep" and theirs in RANK and mine in RANK
            if both_known and theirs != mine and RANK[theirs] <= RANK[mine]:
                wrong.append(f"{where(module, line)}: {mine} imports {theirs}, which is not below it")
    assert not wrong, "\n".join(wrong)


def test_imports_within_a_package_make_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    names = {".".join(m.relative_to(ROOT).with_suffix("").parts): m for m in MODULES}
    for name, module in names.items():
        targets = {target for _, target in imported(module)}
        graph[name] = {n for t in targets for n in (t, t.rpartition(".")[0]) if n in names and n != name}
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and graph[name] <= done}:
        done |= ready
    assert not set(graph) - done, f"a circle among {', '.join(sorted(set(graph) - done))}"


def test_the_library_does_not_import_its_entry_points() -> None:
    wrong = [where(m, line) for m in MODULES for line, name in imported(m) if name.split(".")[0] in ("jobs", "tests")]
    assert not wrong


def test_only_the_demo_and_a_job_know_the_example_consumer() -> None:
    found = {str(m.relative_to(PACKAGE)) for m in MODULES for _, name in imported(m) if name.startswith("return_prop")}
    assert found == {"cli/pipeline.py", "workflows/jobs.py"}


def test_model_never_imports_pyspark_and_features_never_torch() -> None:
    assert not uses("model", "pyspark", "delta", "horovod")
    assert not uses("features", "torch", "horovod")


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("userrep.cli, userrep.features.layout", "pyspark, torch"),  # `--help`, and what models and trainers share
        (
            "userrep.model.autoencoder, userrep.model.artifact, userrep.inference.encoder, userrep.training.loop",
            "pyspark",
        ),
        (
            "userrep.features.sums.refresh, userrep.features.training_rows",
            "torch, pandas, sklearn",
        ),  # workers load these
        ("userrep.audiences.audience, userrep.cli.export", "torch, mlflow"),
        (
            "userrep.client.embeddings, userrep.joins.arrow_join, userrep.spaces.consumers, userrep.cli.main, "
            "userrep.workflows.status",
            "pyspark, torch, sklearn, mlflow, matplotlib, scipy, safetensors, jinja2",
        ),  # the core, which is installed without extras
        (
            "userrep.workflows.export, userrep.report.gather, userrep.streaming.user_lookup",
            "torch, pandas, sklearn, mlflow",
        ),
        ("userrep.joins.embedding_join, userrep.joins.training_sets", "torch, sklearn, mlflow"),
        ("userrep.report.explained, userrep.workflows.segments", "torch, mlflow, lightgbm"),
    ],
)
def test_a_process_that_imports_these_does_not_get_those(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print([name for name in {absent.split(', ')} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_no_module_uses_rdds_and_only_three_use_the_spark_context() -> None:
    texts = {where(module, 0): module.read_text(encoding="utf-8") for module in [*MODULES, *JOBS]}
    assert {
        place
        for place, text in texts.items()
        if re.search(r"sparkContext|_active_spark_context|import SparkContext|SparkContext[.(]", text)
    } == {"userrep/training/launch/launchers.py:0", "userrep/spark/spark_work.py:0", "userrep/spark/session.py:0"}
    assert not [place for place, text in texts.items() if re.search(r"\.(rdd|parallelize)\b", text)]


def attributes_used(module: Path) -> list[tuple[int, str]]:
    """Return (line, ``name.attribute``) for all that a module's code looks up; comments and docstrings don't count."""
    tree = ast.walk(ast.parse(module.read_text(encoding="utf-8")))
    return [(node.lineno, ast.unparse(node)) for node in tree if isinstance(node, ast.Attribute)]


def test_nothing_is_unpickled_and_yaml_is_only_read_safely() -> None:
    unsafe_modules = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    unsafe_calls = {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}
    wrong = [
        f"{where(m, line)} {name}"
        for m in [*MODULES, *JOBS]
        for line, name in imported(m)
        if name.split(".")[0] in unsafe_modules
    ]
    wrong += [
        f"{where(m, line)} {name}"
        for m in [*MODULES, *JOBS]
        for line, name in attributes_used(m)
        if name in unsafe_calls
    ]
    assert not wrong, "\n".join(wrong)


def test_no_row_udf_is_used_where_arrow_batches_do() -> None:
    wrong = [
        f"{where(m, line)} {name}"
        for m in MODULES
        for line, name in attributes_used(m)
        if name in ("F.udf", "F.pandas_udf") and part_of(m) != "inference"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_join_names_its_type() -> None:
    wrong = []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
                keys = {keyword.arg for keyword in node.keywords}
                if "on" in keys and "how" not in keys:
                    wrong.append(where(module, node.lineno))
    assert not wrong, "\n".join(wrong)


def test_every_deliberate_exception_is_raised_somewhere() -> None:
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    deliberate = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    raised = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised.add(ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc))
    assert deliberate - raised == set()


def test_every_own_exception_is_defined_in_errors() -> None:
    wrong = []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and module.name != "errors.py":
                bases = [ast.unparse(base) for base in node.bases]
                if any(base.endswith(("Error", "Exception")) for base in bases):
                    wrong.append(where(module, node.lineno))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_is_short_and_describes_what_it_does(job: Path) -> None:
    text = job.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 40
    description = ast.get_docstring(tree) or ""
    assert len(description.splitlines()[0]) > 20
    assert re.search(rf"spark-submit [^\n]*(\\\n +)?jobs/{job.name} --", description)
    branches = [ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
    assert branches == ["__name__ == '__main__'"]


def test_every_job_that_the_command_line_knows_has_its_case_and_its_file() -> None:
    def tree(*parts: str) -> ast.Module:
        return ast.parse(PACKAGE.joinpath(*parts).read_text(encoding="utf-8"))

    tables = [node for node in tree("cli", "pipeline.py").body if ast.unparse(node).startswith("JOB_NAMES = ")]
    assert isinstance(tables[0], ast.Assign)
    known = ast.literal_eval(tables[0].value)
    patterns = [node for node in ast.walk(tree("workflows", "jobs.py")) if isinstance(node, ast.MatchValue)]
    assert [ast.literal_eval(pattern.value) for pattern in patterns] == [*known]
    assert {*known} <= {job.stem for job in JOBS}


def test_no_file_is_named_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    files = [*MODULES, *JOBS, *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert not [file.name for file in files if file.stem in vague]


def test_a_class_name_is_defined_once() -> None:
    trees = [ast.parse(module.read_text(encoding="utf-8")) for module in MODULES]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, num in names.items() if num > 1 and not name.startswith("_")] == []


def test_every_module_has_a_docstring() -> None:
    texts = {module: module.read_text(encoding="utf-8") for module in MODULES}
    assert not [where(m, 1) for m, text in texts.items() if text and ast.get_docstring(ast.parse(text)) is None]
