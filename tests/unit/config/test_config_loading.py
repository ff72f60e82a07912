"""Reading a configuration: files and overrides, and the messages for what is wrong in them."""

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configurations import EVENTS, ITEMS, SMALLEST, fault_of, faults_of, loaded, parsed
from tests.support.hostile import fuzzed
from userrep.config import load_config
from userrep.errors import UsageError

pytestmark = pytest.mark.fast


# Faults


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
        ({"events": {"sources": [{**EVENTS, "event_typ": "play"}]}}, "events.sources.0.event_typ", "event_type"),
        ({"schema_": "s"}, "schema_", "schema"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(
    sections: dict[str, Any], place: str, nearest: str
) -> None:
    assert fault_of({**SMALLEST, **sections}) == f"unknown key {place}; did you mean {nearest}?"


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    fault = fault_of({**SMALLEST, "snapshots": {"zzz": 1}})
    assert (
        fault
        == "unknown key snapshots.zzz; known keys: publish_delay, keep_daily, keep_weekly, history_dates, storage."
    )


def test_all_faults_are_reported_together() -> None:
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
        "model.latent_dim: must be a whole number",
        "model.dropout: must be less than 1",
        "training: num_workers must be 1 with backend local",
        "training: num_workers must divide num_shards (16)",
        "training: batch_size must be a multiple of num_shards (16)",
        "item_vectors.behaviour.kind: must be one of als, text, vector, got 'lda'",
        "item_vectors.Own: not a valid name",
    ):
        assert part in said
    assert len(faults) == 9


def test_an_unknown_key_does_not_hide_that_settings_do_not_fit_together() -> None:
    faults = faults_of({**SMALLEST, "modle": {}, "windows_days": [7], "history_days": 3, "training": {"sed": 1}})
    assert [fault.partition(";")[0].partition(":")[0] for fault in faults] == [
        "unknown key training.sed", "unknown key modle", "history_days",
    ]  # fmt: skip


def test_a_value_of_spark_conf_is_never_shown() -> None:
    fault = fault_of({**SMALLEST, "spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": ["hunter2"]}}})
    assert "hunter2" not in fault


def test_a_password_in_an_address_is_masked_in_a_value_of_another_type() -> None:
    fault = fault_of({**SMALLEST, "windows_days": "https://me:hunter2@host/path"})
    assert fault == "windows_days: must be a list, such as [7, 30], got 'https://***@host/path'."


def test_a_long_value_is_shown_in_brief() -> None:
    assert len(fault_of({**SMALLEST, "windows_days": "x" * 1000})) < 200


# Files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: No such file or directory\. Name a configuration file with"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"root: [", "cannot be read as YAML: expected the node content, but found '<stream end>' in line 1"),
        (b"\xff\xfe\x00", r"c\.yaml: not UTF-8 text\. Save it as UTF-8\."),
        (b"a:\n\tb: 1", r"that cannot start any token in line 2\. Indent with spaces\.$"),
        (b"until: !!timestamp 2024-13-01", "cannot be read as YAML: month must be in 1..12"),
        (
            b"root: !!python/object/apply:os.system ['touch hacked']",
            "cannot be read as YAML: could not determine a const",
        ),
        (b"- root: r", "must consist of keys with values, such as `root: PATH`, got a list"),
        (b"", r"c\.yaml: is empty; `userrep init --events PATH` writes one\."),
        (b"# only a comment", r"c\.yaml: is empty; `userrep init"),
        (b"just words", "must consist of keys with values, such as `root: PATH`, got text"),
        (b"3.5", "must consist of keys with values, such as `root: PATH`, got a single value"),
        (
            b"1: 2\nroot: r\nevents: {path: p, columns: {user_id: u, item_id: i, event_at: t}}",
            r"c\.yaml:1: 1: a key must be text, got 1\.",
        ),
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


def test_each_fault_has_the_line_of_its_key_or_of_the_section_that_lacks_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "root: r\nevents:\n  sources:\n  - path: p\n    columns: {user_id: u}\n    formt: csv\n"
        "item_vectors:\n  own:\n    kind: als\n    dims: 3\ntraining:\n  num_workers: 2\n"
        "  as_ofs: {until: 2024-02-30}\nmodle: {}\nspark: {conf: {\n  a.b: null}}\n"
    )
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert sorted(fault.removeprefix(f"{path}:") for fault in caught.value.faults) == [
        "10: unknown key item_vectors.own.dims; did you mean dim?",
        "13: training.as_ofs.until: day is out of range for month, got '2024-02-30'.",
        "14: unknown key modle; did you mean model?",
        "16: spark.conf.a.b: must be text.",
        "5: events.sources.0.columns.event_at is missing.",
        "5: events.sources.0.columns.item_id is missing.",
        "6: unknown key events.sources.0.formt; did you mean format?",
    ]
    path.write_text("root: r\ntraining:\n  num_workers: 2\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert [fault.removeprefix(str(path))[:18] for fault in caught.value.faults] == [
        ": events is missin",
        ":2: training: num_",
    ]


@pytest.mark.parametrize("num_aliases", [32, 33])
def test_a_file_may_hold_32_aliases_and_any_other_asterisks(tmp_path: Path, num_aliases: int) -> None:
    path = tmp_path / "c.yaml"
    context = f"[&name device, {', '.join(['*name'] * num_aliases)}]"
    columns = f"{{user_id: u, item_id: i, event_at: t, context: {context}}}"
    path.write_text(f"root: r\nevents: {{path: 'log/*/*', columns: {columns}}}\n")
    said = "duplicate names: device" if num_aliases == 32 else r"more than 32 aliases \(\*name\), got 33"
    with pytest.raises(UsageError, match=said):
        load_config(path)


def test_a_file_may_hold_a_mebicharacter(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    text = yaml.safe_dump(SMALLEST) + "#"
    path.write_text(text + "é" * (2**20 - len(text)))
    assert load_config(path).root == f"{tmp_path}/build/here"
    path.write_text(text + "é" * (2**20 - len(text) + 1))
    with pytest.raises(UsageError, match="cannot be read as YAML: it has more than 1048576 characters"):
        load_config(path)


def test_paths_of_the_file_are_relative_to_it_and_those_of_overrides_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = tmp_path / "conf" / "c.yaml", tmp_path / "elsewhere"
    path.parent.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    users = {"path": "/data/users", "columns": {"user_id": "u"}}
    path.write_text(yaml.safe_dump({**SMALLEST, "root": "../build", "items": ITEMS, "users": users}))
    config = load_config(path, ["items.path=items"])
    assert config.root == f"{tmp_path}/build"
    assert config.events.path == f"{tmp_path}/conf/log"
    assert config.items is not None
    assert config.items.path == f"{elsewhere}/items"
    assert config.users is not None
    assert config.users.path == "/data/users"
    assert load_config(path, folder=".").root == f"{tmp_path}/build"
    services = {
        "tracking": {"uri": "sqlite:///mlflow.db"},
        "lineage": {"transport": {"type": "file", "log_file_path": "events.jsonl"}},
    }
    path.write_text(yaml.safe_dump({**SMALLEST, "root": "s3a://bucket/here"} | services))
    config = load_config(path)
    assert config.tracking.uri == f"sqlite:///{tmp_path}/conf/mlflow.db"
    assert config.lineage is not None
    assert config.lineage.transport == {"type": "file", "log_file_path": f"{tmp_path}/conf/events.jsonl"}
    for uri in ("sqlite:////data/mlflow.db", "sqlite:///${HOME}/mlflow.db", "databricks"):
        assert load_config(path, [f"tracking.uri={uri}"]).tracking.uri == uri
    assert load_config(path, ["events={path: log, columns: {user_id: u, item_id: i, event_at: t}}"]).events.path == (
        f"{elsewhere}/log"
    )
    assert load_config(path).root == "s3a://bucket/here"


def test_a_missing_variable_is_named_with_its_key(tmp_path: Path) -> None:
    transport = {"type": "file", "path": "of a transport", "log_file_path": "${ABSENT}/events.jsonl"}
    path = tmp_path / "userrep.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, "lineage": {"transport": transport}}))
    with pytest.raises(UsageError, match=r"lineage\.transport\.log_file_path: must only use environment variables"):
        load_config(path)


def test_variables_and_the_home_folder_are_expanded_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LOGS", "logs")
    monkeypatch.setenv("BUCKET", "s3a://bucket")
    events, users = {**EVENTS, "path": "${LOGS}/ev~ents"}, {"path": "~/x", "columns": {"user_id": "u"}}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"root": "${BUCKET}/a", "events": events, "users": users}))
    config = load_config(path, ["users.path=~/users"])
    assert (config.root, config.events.path) == ("s3a://bucket/a", f"{tmp_path}/logs/ev~ents")
    assert config.users is not None
    assert config.users.path == "/home/ada/users"
    table = load_config(path, ["events.format=table", "events.path=${LOGS}.events"]).events
    assert table.path == "logs.events"
    assert load_config(path, ["root=./~x"]).root == os.path.abspath("~x")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("${ABSENT_A}/${ABSENT_B}", "must only use environment variables that are set (not set: ABSENT_A, ABSENT_B)"),
        ("${HO ME}/x", "must name environment variables as ${NAME}, with letters, digits and _"),
        (
            "~absent/x",
            "must not begin with ~absent, which is not a user of this machine (./~ names a folder)",
        ),
    ],
)
def test_a_path_that_cannot_be_expanded_is_refused(root: str, said: str) -> None:
    assert fault_of({**SMALLEST, "root": root}) == f"root: {said}, got '{root}'."


def test_a_duplicate_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("root: a\nevents: {path: a,\n  path: b}\nitems: {}\nroot: b\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert caught.value.faults == [
        f"{path}: cannot be read as YAML: duplicate key {key}. Remove one of them."
        for key in ("path in lines 2 and 3", "root in lines 1 and 5")
    ]


def test_the_names_of_tables_are_no_paths_and_sources_have_paths(tmp_path: Path) -> None:
    columns = {"user_id": "u", "item_id": "i", "event_at": "t"}
    sources = [{"path": "main.raw.events", "format": "table", "columns": columns}, {"path": "log", "columns": columns}]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"root": "dbfs:/here", "events": {"sources": sources}}))
    config = load_config(path)
    assert [source.path for source in config.events.sources] == ["main.raw.events", f"{tmp_path}/log"]
    assert config.root == "dbfs:/here"


def test_the_shipped_configurations_are_valid() -> None:
    shipped = sorted(Path(__file__).parents[3].glob("conf/*.yaml"))
    assert {path.name for path in shipped} >= {"demo.yaml", "online_retail_ii.yaml"}
    for path in shipped:
        load_config(path)


# Overrides


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


@fuzzed(50)
@given(
    parts=st.lists(st.from_regex(r"[A-Za-z0-9_#-]{1,8}", fullmatch=True), min_size=1, max_size=5),
    value=st.text("ab0é =.:,'\"#*&!%@{}[]|>\\-?~", max_size=12),
)
def test_an_override_gives_spark_conf_any_key_and_text(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], value: str
) -> None:
    key = ".".join(parts)
    folder = tmp_path_factory.getbasetemp()
    config = loaded(
        folder, f"spark.conf.{key}={json.dumps(value, ensure_ascii=False)}", spark={"conf": {"spark.kept": "yes"}}
    )
    assert config.spark.conf == {"spark.kept": "yes", key: value}


def test_an_override_changes_one_of_two_sections_that_share_an_alias(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    columns = "{user_id: u, item_id: i, event_at: t}"
    path.write_text(f"root: r\nevents: {{path: log, columns: {columns}}}\ndrift: {{warn: &l {{psi: 0.2}}, fail: *l}}\n")
    drift = load_config(path, ["drift.fail.psi=0.5"]).drift
    assert (drift.warn.psi, drift.fail.psi) == (0.2, 0.5)


def test_an_override_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert loaded(tmp_path, "events.path=/log/day=1").events.path == "/log/day=1"


def test_a_null_override_takes_a_value_away(tmp_path: Path) -> None:
    config = loaded(tmp_path, "root=null", "catalog=main", "schema=userrep", "artifacts=/models")
    assert config.root is None


def test_an_override_fills_an_empty_section_and_the_last_of_two_counts(tmp_path: Path) -> None:
    config = loaded(tmp_path, "users.path=/old", "users.columns.user_id=id", "users.path=/new", users=None)
    assert config.users == parsed(users={"path": "/new", "columns": {"user_id": "id"}}).users


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("latent_dim", "not of the form key.path=value"),
        ("=3", "not of the form key.path=value"),
        ("model..latent_dim=3", "not of the form key.path=value"),
        ("model.=3", "not of the form key.path=value"),
        ("root.deeper=3", "root is not a section and has no keys"),
        ("windows_days=[1", "the value cannot be read as YAML"),
        (
            "training.as_ofs.until=2024-02-30",
            "--set training.as_ofs.until: day is out of range for month, got '2024-02-30'",
        ),
        ("root=!!python/object/apply:os.getcwd []", "the value cannot be read as YAML"),
        ("modle.latent_dim=3", r"--set modle.latent_dim: unknown key modle; did you mean model\?"),
        (
            "training.as_ofs.until=yesterday",
            "--set training.as_ofs.until: must be a date in the form YYYY-MM-DD, got 'yesterday'",
        ),
    ],
)
def test_a_bad_override_is_refused_with_the_cure(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(tmp_path, override)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model.latent_dim=wide", "--set model.latent_dim: must be a whole number, got 'wide'."),
        ("model={latent_dim: 1.5}", "--set model: model.latent_dim: must be a whole number, got 1.5."),
        ("spark.conf.a.b=null", "--set spark.conf.a.b: must be text."),
        ("stream.events.topic=t", "--set stream.events.topic: stream: events.topic needs kafka.bootstrap_servers."),
        ("windows_days=[]", "--set windows_days: must not be empty, got []."),
        ("training.patience=2", "FILE:4: training.max_epochs: must be at least 1, got 0."),
        ("training.patience=0", "--set training.patience: must be at least 1, got 0."),
    ],
)
def test_a_fault_of_an_override_is_not_blamed_on_the_file(tmp_path: Path, override: str, fault: str) -> None:
    path = tmp_path / "c.yaml"
    max_epochs = 0 if fault.startswith("FILE") else 1
    path.write_text(
        f"root: r\nwindows_days: [7]\ntraining:\n  max_epochs: {max_epochs}\nevents: {json.dumps(EVENTS)}\n"
    )
    with pytest.raises(UsageError) as caught:
        load_config(path, [override])
    assert caught.value.faults == [fault.replace("FILE", str(path))]


def test_bad_overrides_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, "one", "two", "model.latent_dim=8")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--set one", "--set two"]
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, "one", "model.latent_dim=wide")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--set one", "--set model.latent_dim"]


def test_a_bad_override_is_shown_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, "root.x=hunter2", "stream.redis.url=[hunter2", "=hunter2")
    assert caught.value.faults == [
        "--set root.x=...: root is not a section and has no keys.",
        "--set stream.redis.url=...: the value cannot be read as YAML.",
        "--set =...: not of the form key.path=value. Example: --set model.latent_dim=64.",
    ]
