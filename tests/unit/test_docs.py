"""What the documentation says of the code."""

import json
import logging
import re
from dataclasses import fields
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

import userrep
from deploy.build_reference import pages
from deploy.reference.configuration import meaning
from deploy.reference.markdown import PAGES
from deploy.reference.tables import explained
from tests.support.builders import config_of
from tests.support.command_line import configuration_of
from tests.support.embedding_tables import add_spaces, publish, snapshot
from tests.unit.spaces.test_snapshot_files import DATES, Site, site  # noqa: F401  # a fixture
from userrep.cli import consumers as cli_consumers
from userrep.cli import spaces as cli_spaces
from userrep.config import Drift, DriftLimits, Section
from userrep.evaluation.dates import make_plan
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.tasks.catalog import audience_tasks, newcomer_tasks, tasks_of
from userrep.joins import statuses
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.join import join_embeddings
from userrep.joins.options import InSampleWarning, JoinOptions, JoinParams
from userrep.logs import log_to_stderr, stop_log_to_stderr
from userrep.spaces.registry import add_candidate, artifact_folder, find_space, mark_ready, promote, read_registry
from userrep.spaces.snapshots import publish_snapshots
from userrep.store.file_tables import FileTables
from userrep.workflows.export import export_embeddings

pytestmark = pytest.mark.default

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_what_the_code_gives() -> None:
    stale = [name for name, text in pages().items() if (PAGES / name).read_text(encoding="utf-8") != text]
    assert stale == [], "docs/reference is not what the code gives: run make reference"


def test_a_key_or_column_without_an_explanation_fails_the_reference() -> None:
    class Unexplained(Section):
        key: int

    with pytest.raises(ValueError, match=r"Unexplained\.key: say below it what it means, in a docstring"):
        meaning(Unexplained, "key")
    with pytest.raises(ValueError, match=r"job_runs\.mood: say in userrep/store/data_dictionary\.py what it means"):
        explained("job_runs", "mood")


def test_the_page_on_drift_lists_every_metric_with_its_limit_and_meaning() -> None:
    page = (DOCS / "how-to" / "drift.md").read_text(encoding="utf-8").split("\n## Limits\n")[1]
    listed = re.findall(r"^\| `([a-z_]+)` \| ([\d.]+) \| (.+) \|$", page, flags=re.MULTILINE)
    wanted = {name: (str(limit), meaning(DriftLimits, name)) for name, limit in Drift().warn.model_dump().items()}
    assert {name: (limit, f"{said[0].upper()}{said[1:]}.") for name, limit, said in listed} == wanted


def test_the_examples_of_the_page_on_embeddings_run_and_give_the_snapshots_vectors(
    site: Site,  # noqa: F811  # the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    tables, config, space = site
    publish_snapshots(tables, config, space, site.stage(), on_time=True)
    mark_ready(tables, space)
    promote(tables, find_space(tables, "s1"))
    as_of = DATES[-1]
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json", exclude_none=True, by_alias=True))
    )
    export_embeddings(tables, config, space, as_of, str(tmp_path / "out"))
    names: dict[str, Any] = {
        "out": str(tmp_path / "out"), "artifact": artifact_folder(tables, space),
    }  # fmt: skip
    wanted = {row["user_id"]: row["embedding"] for row in site.rows(as_of).to_pylist()}
    seen = []
    for example in examples("how-to/embeddings.md"):
        exec(example.replace("mine.yaml", str(tmp_path / "mine.yaml")), names)
        for name in {"vectors", "users"} & names.keys():
            found = names.pop(name)
            rows = (
                found.collect() if name == "vectors" else found.to_dict("records") if hasattr(found, "iloc") else found
            )
            assert {row["user_id"]: list(row["embedding"]) for row in rows} == wanted
            seen.append(name)
    assert seen == ["vectors", "vectors", "users", "users", "users"]
    assert (names["vector"].shape, names["batch"].shape, names["is_whole"]) == ((16,), (2, 16), True)
    part = next((tmp_path / "out").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    exec(examples("how-to/embeddings.md")[-1], names)
    assert not names["is_whole"]


def test_the_queries_of_the_page_on_sql_give_what_the_public_api_gives(site: Site) -> None:  # noqa: F811
    tables, config, space = site
    publish_snapshots(tables, config, space, site.stage(), on_time=True)
    mark_ready(tables, space)
    promote(tables, find_space(tables, "s1"))
    wanted = {row["user_id"]: row for row in userrep.open(config.root).latest().to_pylist()}
    _, current, at_label_time = examples("how-to/sql.md", "sql")
    rows = [row.asDict() for row in tables.spark.sql(current.replace("ROOT", config.root)).collect()]
    assert {row["user_id"]: row for row in rows} == wanted
    names: dict[str, Any] = {"root": config.root}
    exec(examples("how-to/sql.md")[0], names)
    assert {row["user_id"]: row for row in names["current"].read_all().to_pylist()} == wanted

    times = [datetime.combine(day, time(hour)) for day in DATES for hour in (5, 6, 12)]  # available at 06:00
    labels = tables.spark.createDataFrame(
        [(user, at) for user in wanted for at in times], "user_id STRING, label_at TIMESTAMP"
    )
    labels.createOrReplaceTempView("labels")
    joined = tables.spark.sql(at_label_time.replace("ROOT", config.root)).collect()
    with pytest.warns(InSampleWarning):
        expected = join_embeddings(labels, tables=tables, options=JoinOptions(handle_invalid="skip"))
    columns = ["user_id", "label_at", "as_of", "embedding"]
    assert sorted(joined) == sorted(expected.select(*columns).collect())
    assert len(joined) > len(wanted)


def test_the_page_on_schedulers_names_commands_that_userrep_takes_and_that_on_logs_every_key_of_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / "how-to" / "schedulers.md").read_text(encoding="utf-8")
    commands = set(
        re.findall(
            r"userrep ((?:run|daily|nightly|check|forget|pipeline|backfill) [^`\"&>\n]*--config [^`\"&>\n]*)", page
        )
    )
    assert len(commands) >= 8
    values = {"C": str(DOCS.parent / "conf" / "production.yaml"), "D": "2024-06-02"}
    values |= {"$C": values["C"], "$D": values["D"], "/data/userrep.yaml": values["C"]}
    values |= {"FIRST": "2024-05-01", "LAST": values["D"]}
    for command in commands:
        words = command.replace("[", "").replace("]", "").split()  # with all optional arguments
        configuration_of([values.get(word, word) for word in words], monkeypatch)
    monkeypatch.setenv("USERREP_LOG", "json")
    told = {"outcome": "done", "seconds": 1.0, "num_rows": 1, "reason": ""}
    log_to_stderr()
    logging.getLogger("userrep.tests").info("a stage's end", extra={"figures": told})
    stop_log_to_stderr()
    line = json.loads(capsys.readouterr().err)
    logs = (DOCS / "reference" / "logs.md").read_text(encoding="utf-8")
    rows = "".join(re.findall(r"^\| (`[^|]+) \|", logs, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == line.keys()
    assert json.loads(logs.split("```json\n")[1].split("```")[0]).keys() == line.keys()


def examples(page: str, language: str = "python") -> list[str]:
    """Return the examples of a page in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def test_the_page_on_spaces_names_commands_that_there_are_and_its_example_runs(tmp_path: Path) -> None:
    page = (DOCS / "explanation" / "spaces.md").read_text(encoding="utf-8")
    known = {"spaces": cli_spaces.app, "consumers": cli_consumers.app}
    named = set(re.findall(r"userrep (spaces|consumers) ([a-z]+)", page))
    for group, app in known.items():
        there = {command.name for command in app.registered_commands}
        assert {command for of, command in named if of == group} <= there
    tables = FileTables(None, str(tmp_path))
    for space_id in ("s001-4f09a1", "s002-4f09a1"):
        add_candidate(tables, space_id=space_id, lineage_id="l", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s001-4f09a1"))
    (example,) = examples("explanation/spaces.md")
    exec(example.replace("mine.yaml", str(tmp_path)), {})
    (consumer,) = read_registry(tables).consumers
    assert (consumer.name, consumer.owner, consumer.ready_for) == ("ads", "team ads", "s002-4f09a1")
    promote(tables, find_space(tables, "s002-4f09a1"))


def test_the_page_on_joins_lists_every_option_and_every_status() -> None:
    page = (DOCS / "how-to" / "joins.md").read_text(encoding="utf-8")
    table = page.split("## Options")[1].split("`space` is a space id")[0]
    listed = re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", table, flags=re.MULTILINE)
    assert [option for option, _ in listed] == list(JoinParams.__annotations__)  # in the order of the fields
    shown = {None: "none", "null": "unset"}  # null is an earlier name of a value of another option
    defaults = [field.default for field in fields(JoinOptions)]
    assert [default for _, default in listed] == [shown.get(default, str(default)) for default in defaults]
    stage = EmbeddingJoin()
    assert {param for param, _ in listed} == {p.name for p in stage.params} - {
        "space",
        "spaceId",
        "mappedFrom",
        "root",
        "schema",
    }
    rows = re.findall(r"^\| (`.+?) \| (?:yes|null) \|", page, flags=re.MULTILINE)
    texts = {name: value for name, value in vars(statuses).items() if name.isupper() and isinstance(value, str)}
    known = {value for name, value in texts.items() if name not in ("SPACE_ID", "MAPPED_FROM")}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == known


def test_the_example_of_the_page_on_joins_runs(spark: SparkSession, tmp_path: Path) -> None:
    tables = FileTables(spark, str(tmp_path / "build/demo"))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(date(2024, 5, 1)): {f"u{k}": [float(k % 2), 1.0] for k in range(20)}})
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    rows = [(f"u{k}", datetime(2024, 5, 1, 12), float(k % 2)) for k in range(21)]
    spark.createDataFrame(rows, "user_id STRING, label_at TIMESTAMP, label DOUBLE").write.parquet(
        str(tmp_path / "labels.parquet")
    )
    page = (DOCS / "how-to" / "joins.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"new_space_id": "s001-a"}
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        exec(re.sub(r'"(build/|labels\.parquet)', rf'"{tmp_path}/\1', block), names)
    for name, num_rows in (("scored", 20), ("joined", 21), ("rows", 20), ("again", 20)):
        assert names[name].count() == num_rows  # type: ignore[attr-defined]


def test_the_page_on_evaluation_names_all_representations_and_tasks(tmp_path: Path) -> None:
    page = (DOCS / "reference" / "evaluation.md").read_text(encoding="utf-8")
    plan = make_plan(
        until=date(2024, 1, 1), end=date(2024, 6, 1), horizons=[7, 30], every_days=7, max_dates=8, space="s1"
    )
    tasks = [*tasks_of(plan, [], []), *audience_tasks(plan, []), *newcomer_tasks(plan, config_of(tmp_path)).values()]
    names = [task.name for task in tasks]
    names += representations()
    assert [name for name in names if f"`{name}`" not in page] == []
