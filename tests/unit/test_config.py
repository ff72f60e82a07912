"""The configuration: what is refused, in which words, and what stands in for what is left out."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from userrep.config import AlsVectors, Config, TextVectors, load_config, parse_config
from userrep.errors import UsageError
from userrep.ids import checked_name, short_hash, snapshot_id

pytestmark = pytest.mark.fast

EVENTS = {"path": "log", "columns": {"user_id": "user", "item_id": "item", "event_at": "at"}}
ITEMS = {"path": "items", "columns": {"item_id": "item", "text": "title"}}
USERS = {"path": "users", "columns": {"user_id": "user_id"}}
SMALLEST = {"root": "build/here", "events": EVENTS}
CATALOG = {"catalog": "main", "schema": "userrep", "events": EVENTS}


def loaded(folder: Path, *overrides: str, **sections: Any) -> Config:
    """Write a configuration file, smallest but for these sections, and read it."""
    path = folder / "userrep.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, **sections}))
    return load_config(path, overrides)


def faults_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse_config(values, "c.yaml")
    assert caught.value.exit_code == 2
    assert all("\n" not in fault and fault.startswith("c.yaml: ") for fault in caught.value.faults)
    return [fault.removeprefix("c.yaml: ") for fault in caught.value.faults]


def fault_of(values: dict[str, Any]) -> str:
    faults = faults_of(values)
    assert len(faults) == 1, faults
    return faults[0]


@pytest.mark.parametrize(
    ("sections", "place", "nearest"),
    [
        ({"modle": {}}, "modle", "model"),
        ({"model": {"latentdim": 64}}, "model.latentdim", "latent_dim"),
        ({"window_days": [7]}, "window_days", "windows_days"),
        ({"training": {"as_ofs": {"untill": "2024-01-01"}}}, "training.as_ofs.untill", "until"),
        ({"item_vectors": {"behaviour": {"kind": "als", "dims": 8}}}, "item_vectors.behaviour.dims", "dim"),
        ({"item_vectors": {"text": {"kind": "als", "dims": 8}}}, "item_vectors.text.dims", "dim"),
        ({"users": {"path": "u", "columns": {"userid": "u", "user_id": "u"}}}, "users.columns.userid", "user_id"),
        ({"schema_": "s"}, "schema_", "schema"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(
    sections: dict[str, Any], place: str, nearest: str
) -> None:
    assert fault_of({**SMALLEST, **sections}) == f"unknown key {place}; did you mean {nearest}?"


def test_an_unknown_key_like_no_other_lists_those_that_are_known() -> None:
    fault = fault_of({**SMALLEST, "snapshots": {"zzz": 1}})
    assert fault == "unknown key snapshots.zzz; known here: publish_delay, keep_daily, keep_weekly."


def test_all_faults_are_said_at_once() -> None:
    faults = faults_of(
        {
            "root": "r",
            "evnts": {},
            "model": {"latent_dim": "wide", "dropout": 2},
            "training": {"backend": "local", "num_workers": 3, "batch_size": 100},
            "item_vectors": {"behaviour": {"kind": "lda"}, "Own": {"kind": "als"}},
        }
    )
    said = "\n".join(faults)
    for part in (
        "events is missing",
        "unknown key evnts; did you mean events?",
        "model.latent_dim: Input should be a valid integer",
        "model.dropout: Input should be less than 1",
        "training: num_workers must be 1 with backend local",
        "training: num_workers must divide num_shards (16)",
        "training: batch_size must be a multiple of num_shards (16)",
        "item_vectors.behaviour.kind: one of als, text, vector was expected, got 'lda'",
        "item_vectors.Own: not a valid name",
    ):
        assert part in said
    assert len(faults) == 9


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"windows_days": 7}, "windows_days: Input should be a valid list, got 7."),
        ({"windows_days": []}, "windows_days: List should have at least 1 item"),
        ({"windows_days": [7, 7]}, "windows_days: numbers must differ, got [7, 7]."),
        ({"windows_days": [0]}, "windows_days.0: Input should be greater than or equal to 1, got 0."),
        ({"windows_days": [10**9]}, "windows_days.0: Input should be less than or equal to 3650"),
        ({"history_days": -1}, "history_days: Input should be greater than or equal to 0, got -1."),
        ({"history_days": 10**9}, "history_days: Input should be less than or equal to 7300"),
        (
            {"history_days": 180},
            "history_days: 180: wanted more than the longest of windows_days, 180; leave it out for twice that, or set "
            "it to 0 for no history",
        ),
        ({"model": {"latent_dim": 64.5}}, "model.latent_dim: Input should be a valid integer"),
        ({"model": None}, "model: keys were expected below it, got None."),
        ({"items": "items.parquet"}, "items: keys were expected below it, got 'items.parquet'."),
        ({"events": {**EVENTS, "format": "avro"}}, "events.format: Input should be 'parquet', 'delta'"),
        ({"events": {**EVENTS, "path": ""}}, "events.path: String should have at least 1 character"),
        ({"root": ""}, "root: String should have at least 1 character"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: Input should be a finite number"),
        ({"training": {"init_from": "../s001"}}, "training.init_from: not a valid name: use 1 to 64 of a-z"),
        (
            {"training": {"future_days": [8]}},
            "training.future_days: 8: choose among windows_days, 7, 30, 180: the past",
        ),
        ({"training": {"future_days": []}}, "training.future_days: List should have at least 1 item"),
        ({"gates": {"min_rows_share": 1.5}}, "gates.min_rows_share: Input should be less than or equal to 1"),
        ({"training": {"as_ofs": {"until": 20240101}}}, "training.as_ofs.until: write a date as YYYY-MM-DD, got 20240"),
        ({"training": {"as_ofs": {"until": "1.5.2024"}}}, "training.as_ofs.until: write a date as YYYY-MM-DD"),
        ({"users": {"path": "u", "columns": {"user_id": "u"}, "attributes": ["a", "a"]}}, "a is named twice"),
        ({"events": {"path": "l", "columns": {**EVENTS["columns"], "context": ["b", "b"]}}}, "b is named twice"),
        (
            {"users": {"path": "u", "columns": {"user_id": "u"}, "attributes": ["a.b", "A_B"]}},
            "users.attributes: a_b is named twice",
        ),
        ({"evaluation": {"attributes": ["Age", "age"]}}, "evaluation.attributes: age is named twice"),
        ({"evaluation": {"newcomer_events": [3, 3]}}, "evaluation.newcomer_events: numbers must differ"),
        ({"evaluation": {"newcomer_events": [-1]}}, "evaluation.newcomer_events.0: Input should be greater than or eq"),
        ({"item_vectors": {}}, "item_vectors: Dictionary should have at least 1 item"),
        ({"item_vectors": {"own": {"dim": 4}}}, "item_vectors.own.kind: one of als, text, vector was expected."),
        ({"item_vectors": {"own": {"kind": "vector"}}}, "item_vectors.own.dim is missing."),
        ({"spark": {"conf": {"spark.ui.enabled": [1]}}}, "spark.conf.spark.ui.enabled: Input should be a valid string"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(sections: dict[str, Any], said: str) -> None:
    assert said in fault_of({**SMALLEST, **sections})


def test_a_value_of_spark_conf_is_never_shown() -> None:
    fault = fault_of({**SMALLEST, "spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": ["hunter2"]}}})
    assert "hunter2" not in fault


def test_a_long_value_is_shown_in_brief() -> None:
    assert len(fault_of({**SMALLEST, "windows_days": "x" * 1000})) < 200


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"events": EVENTS}, "say where tables live: either root: PATH, or catalog: NAME with schema: NAME."),
        ({**SMALLEST, "catalog": "main", "schema": "s"}, "say where tables live: either root"),
        ({"events": EVENTS, "catalog": "main"}, "catalog and schema go together."),
        ({**CATALOG, "schema": "a`; DROP"}, "schema: not a valid name: use 1 to 64 of a-z"),
        ({**CATALOG, "catalog": "../etc"}, "catalog: not a valid name"),
        (
            {**SMALLEST, "evaluation": {"attributes": ["age"]}},
            "evaluation.attributes are columns of the users' table: say where that is (users), or leave them out.",
        ),
        (
            {
                **SMALLEST,
                "users": {**USERS, "attributes": ["Home.Country"]},
                "evaluation": {"attributes": ["home.country"]},
            },
            "evaluation.attributes: home.country is among users.attributes, and so an input; take it out of one of the",
        ),
        (
            {**SMALLEST, "item_vectors": {"content": {"kind": "text"}}},
            "item_vectors.content has kind text, which needs items.columns.text.",
        ),
        (
            {**SMALLEST, "items": ITEMS, "item_vectors": {"own": {"kind": "vector", "dim": 4}}},
            "item_vectors.own has kind vector, which needs items.columns.vector.",
        ),
        (
            {**SMALLEST, "training": {"backend": "local", "num_workers": 2}},
            "training: num_workers must be 1 with backend local; set backend: horovod for more.",
        ),
        (
            {**SMALLEST, "training": {"backend": "horovod", "num_workers": 3}},
            "training: num_workers must divide num_shards (16), so that all ranks step together.",
        ),
        (
            {**SMALLEST, "training": {"batch_size": 500}},
            "training: batch_size must be a multiple of num_shards (16).",
        ),
        (
            {**SMALLEST, "training": {"batch_size_per_rank": 100}},
            "training: batch_size_per_rank x num_workers must be a multiple of num_shards (16).",
        ),
        (
            {**SMALLEST, "training": {"batch_size_per_rank": 64, "batch_size": 1024}},
            "training: batch_size and batch_size_per_rank exclude each other; keep one.",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(values: dict[str, Any], said: str) -> None:
    assert said in fault_of(values)


def test_parts_that_do_not_fit_are_refused_together() -> None:
    vectors = {"content": {"kind": "text"}, "own": {"kind": "vector", "dim": 4}}
    assert len(faults_of({"events": EVENTS, "item_vectors": vectors})) == 3


def test_a_catalog_with_a_schema_stands_for_a_root() -> None:
    config = parse_config(CATALOG, "c.yaml")
    assert (config.root, config.catalog, config.schema_) == (None, "main", "userrep")


def test_without_item_vectors_behaviour_is_learned_and_content_where_there_is_text() -> None:
    assert parse_config(SMALLEST, "c").item_vectors == {"behaviour": AlsVectors(kind="als")}
    with_text = parse_config({**SMALLEST, "items": ITEMS}, "c")
    assert with_text.item_vectors == {"behaviour": AlsVectors(kind="als"), "content": TextVectors(kind="text")}
    without_text = parse_config({**SMALLEST, "items": {"path": "i", "columns": {"item_id": "i"}}}, "c")
    assert set(without_text.item_vectors) == {"behaviour"}


def test_what_is_left_out_gets_the_documented_values() -> None:
    config = parse_config(SMALLEST, "c")
    assert config.windows_days == [7, 30, 180]
    assert config.snapshots.publish_delay == timedelta(hours=6)
    assert config.model.latent_dim == 120
    assert (config.training.backend, config.training.num_workers) == ("local", 1)
    assert config.refit_days == 28
    assert config.spark.item_vectors_bytes == 2 * 2**30


@pytest.mark.parametrize(("text", "wanted"), [("4GiB", 2**32), ("500 MB", 500_000_000), ("1000", 1000)])
def test_memory_is_a_number_of_bytes_or_one_with_a_unit(tmp_path: Path, text: str, wanted: int) -> None:
    assert loaded(tmp_path, f"spark.item_vectors_bytes={text}").spark.item_vectors_bytes == wanted


@pytest.mark.parametrize("text", ["0", "-1", "much"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    fault = fault_of({**SMALLEST, "spark": {"item_vectors_bytes": text}})
    assert "spark.item_vectors_bytes: " in fault


def test_futures_are_the_windows_of_a_month_at_most_else_the_shortest_and_none_without_heads() -> None:
    def future_days(**sections: Any) -> list[int]:
        return parse_config({**SMALLEST, **sections}, "c").future_days

    assert future_days() == [7, 30]
    assert future_days(windows_days=[60, 90]) == [60]
    assert future_days(training={"future_days": [180, 7]}) == [7, 180]
    assert future_days(model={"future_weight": 0}) == []


def test_windows_are_put_in_order() -> None:
    assert parse_config({**SMALLEST, "windows_days": [30, 7]}, "c").windows_days == [7, 30]


def test_the_history_is_twice_the_longest_window_or_what_is_said_and_none_with_0() -> None:
    def history(**sections: Any) -> int | None:
        return parse_config({**SMALLEST, **sections}, "c").history_window

    assert history() == history(history_days=None) == 360
    assert history(windows_days=[90, 7]) == 180
    assert history(windows_days=[3650]) == 7300
    assert history(history_days=181) == 181
    assert history(history_days=0) is None


def test_the_shortest_refit_of_all_modalities_counts() -> None:
    vectors = {"a": {"kind": "als", "refit_days": 14}, "b": {"kind": "als", "refit_days": 7}}
    assert parse_config({**SMALLEST, "item_vectors": vectors}, "c").refit_days == 7


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("6h", timedelta(hours=6)),
        ("90m", timedelta(minutes=90)),
        ("1d", timedelta(days=1)),
        ("30 s", timedelta(seconds=30)),
        ("0h", timedelta(0)),
    ],
)
def test_durations_are_a_number_and_a_unit(tmp_path: Path, text: str, wanted: timedelta) -> None:
    assert loaded(tmp_path, f"snapshots.publish_delay={text}").snapshots.publish_delay == wanted


@pytest.mark.parametrize("text", ["6x", "-6h", "1.5h", "6", "99999999999d", "h", "[6h]"])
def test_what_is_no_duration_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"snapshots\.publish_delay: write a number with d, h, m or s, for example 6h"):
        loaded(tmp_path, f"snapshots.publish_delay={text}")


def test_an_override_reaches_any_depth_and_keeps_the_rest(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "model.latent_dim=64",
        "windows_days=[14, 3]",
        "training.as_ofs.until=2024-02-01",
        "events.columns.context=[device]",
        "item_vectors.behaviour.kind=als",
        "item_vectors.behaviour.dim=8",
        training={"max_epochs": 3},
    )
    assert config.model.latent_dim == 64
    assert config.windows_days == [3, 14]
    assert config.training.as_ofs.until == date(2024, 2, 1)
    assert config.training.max_epochs == 3
    assert config.events.columns.context == ["device"]
    assert config.item_vectors["behaviour"].dim == 8


def test_an_override_of_spark_conf_takes_the_dots_that_follow_as_part_of_the_key(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "spark.conf.spark.sql.shuffle.partitions=7",
        "spark.conf.spark.ui.enabled=false",
        "spark.master=local[2]",
        spark={"conf": {"spark.executor.cores": 2}},
    )
    assert config.spark.conf == {
        "spark.sql.shuffle.partitions": "7",
        "spark.ui.enabled": "false",
        "spark.executor.cores": "2",
    }
    assert config.spark.master == "local[2]"


def test_an_override_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert loaded(tmp_path, "events.path=log/day=1").events.path == "log/day=1"


def test_a_null_override_takes_a_value_away(tmp_path: Path) -> None:
    config = loaded(tmp_path, "root=null", "catalog=main", "schema=userrep")
    assert config.root is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("latent_dim", "write key.path=value"),
        ("=3", "write key.path=value"),
        ("model..latent_dim=3", "write key.path=value"),
        ("model.=3", "write key.path=value"),
        ("root.deeper=3", "root is no section, it has no keys below it"),
        ("windows_days=[1", "the value is not readable as YAML"),
        ("training.as_ofs.until=2024-02-30", "the value is not readable as YAML"),
        ("root=!!python/object/apply:os.getcwd []", "the value is not readable as YAML"),
        ("modle.latent_dim=3", r"unknown key modle; did you mean model\?"),
        ("training.as_ofs.until=yesterday", "training.as_ofs.until: write a date as YYYY-MM-DD, got 'yesterday'"),
    ],
)
def test_a_bad_override_is_refused_with_the_cure(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(tmp_path, override)


def test_bad_overrides_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, "one", "two", "model.latent_dim=8")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--set one", "--set two"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: No such file or directory\. Name a configuration file with"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"root: [", "not readable as YAML: expected the node content, but found '<stream end>' in line 1"),
        (b"\xff\xfe\x00", "not readable as YAML: 'utf-8' codec"),
        (b"training: {as_ofs: {until: 2024-13-01}}", "not readable as YAML: month must be in 1..12"),
        (
            b"root: !!python/object/apply:os.system ['touch hacked']",
            "not readable as YAML: could not determine a const",
        ),
        (b"- root: r", "a mapping of keys was expected at the top, got list"),
        (b"", "a mapping of keys was expected at the top, got NoneType"),
        (b"just words", "a mapping of keys was expected at the top, got str"),
        (b"1: 2\nroot: r\nevents: {path: p, columns: {user_id: u, item_id: i, event_at: t}}", "Keys should be strings"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        load_config("c.yaml")
    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)
    assert not Path("hacked").exists()


def test_the_shipped_configurations_are_valid() -> None:
    shipped = sorted(Path(__file__).parents[2].glob("conf/*.yaml"))
    assert {path.name for path in shipped} >= {"demo.yaml", "online_retail_ii.yaml"}
    for path in shipped:
        load_config(path)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "9lives", "x" * 64])
def test_a_valid_name_is_kept_as_it_is(name: str) -> None:
    assert checked_name(name, "space") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/b",
        "a.b",
        "a b",
        "a\x00b",
        "a\n",
        "x" * 65,
        "Space",
        "-a",
        "_a",
        "naïve",
        "\N{FULLWIDTH LATIN SMALL LETTER A}",
        "\N{FULLWIDTH DIGIT ONE}",
        "a'b",
        "a`b",
    ],
)
def test_a_name_that_may_not_touch_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid name: use 1 to 64 of a-z, 0-9, _ and -") as caught:
        checked_name(name, "space")
    assert "\x00" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_snapshot_is_named_by_space_date_and_revision() -> None:
    assert snapshot_id("s1", date(2024, 5, 1), 2) == "s1-20240501-r2"
    with pytest.raises(UsageError, match="snapshot"):
        snapshot_id("../s1", date(2024, 5, 1), 2)


def test_hashes_depend_on_content_not_on_order_of_keys() -> None:
    assert short_hash({"a": 1, "b": date(2024, 1, 1)}) == short_hash({"b": date(2024, 1, 1), "a": 1})
    assert short_hash({"a": 1}) != short_hash({"a": 2})
    assert len(short_hash("x", 7)) == 7
