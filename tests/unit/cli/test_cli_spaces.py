"""``userrep spaces``: what it prints of the registry, and what it refuses. None of it but diff needs Spark."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import Answer, Userrep, config_file, with_tables
from tests.support.embedding_tables import add_spaces, snapshot
from tests.support.planted_spaces import NEW, OLD, Tastes, labels_of, noise, planted_tables, rotated, written
from userrep import config as settings
from userrep.features.layout import InputLayout, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.artifact import SpaceManifest, tensors_of
from userrep.model.autoencoder import Autoencoder
from userrep.spaces.consumers import register_consumer
from userrep.spaces.create import save_space
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.spaces.snapshots import record_snapshots
from userrep.spaces.verdicts import LabelTable, newest_verdicts
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


def test_spaces_are_listed_with_what_embeds_them_daily(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables
) -> None:
    listed = userrep("spaces", "list", "--config", with_tables(config))
    assert (listed.code, listed.out, listed.err) == (0, "no spaces yet\n", "")
    add_spaces(tables, "s1", "s2")
    mark_ready(tables, find_space(tables, "s1"))
    promote(tables, find_space(tables, "s1"))
    created = f"{find_space(tables, 's1').created_at:%Y-%m-%d %H:%M}"
    lines = userrep("spaces", "list", "--config", config).out.splitlines()
    assert lines[0].split("  ")[0] == "space"
    assert lines[1].split() == ["s1", "serving", "2024-04-01", *created.split(), "serving", "-"]
    assert lines[2].split()[:3] + lines[2].split()[-2:] == ["s2", "candidate", "2024-04-01", "-", "-"]
    found = json.loads(userrep("spaces", "list", "--config", config, "--json").out)["spaces"]
    assert [(space["space_id"], space["trained_until"], space["in_use"]) for space in found] == [
        ("s1", "2024-04-01", "serving"),
        ("s2", "2024-04-01", None),
    ]


def add_trained_space(folder: Path, tables: Tables) -> None:
    """Write an artifact of untrained weights, and register it as a candidate."""
    spec = FeatureSpec(
        windows_days=[7], modalities={"behaviour": 3}, onboarding=False, registered_at=False, attributes=[], context=[]
    )
    layout, model = InputLayout.of(spec, {}), settings.Model(latent_dim=16, hidden_dim=8, decoder_dim=6)
    zeros, ones = np.zeros(layout.width, np.float32), np.ones(layout.width, np.float32)
    manifest = SpaceManifest(
        space_id="s1",
        created_at=datetime(2024, 4, 2, tzinfo=UTC),
        lineage_id="l1",
        trained_until=date(2024, 4, 1),
        layout=layout,
        targets=TargetLayout(futures=[], blocks=[]),
        model=model,
        training=settings.Training(),
        metrics={"valid_loss": 0.123456, "valid_loss.behaviour_7d": 0.5},
        config_hash="c",
        int8_scales=[0.125] * 16,
        code_hash="d",
    )
    state = {
        name: tensor.numpy()
        for name, tensor in Autoencoder(layout, model, TargetLayout(futures=[], blocks=[]), seed=3).state_dict().items()
    }
    tensors = tensors_of(state, Scaler(center_F=zeros, scale_F=ones), zeros)
    saved = save_space(str(folder / "root"), manifest, tensors)
    add_spaces(tables, "s1", content_hash=saved.content_hash)


def test_a_space_is_shown_with_its_figures_and_published_snapshots(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path
) -> None:
    add_trained_space(tmp_path, tables)
    days = (date(2024, 4, 9), date(2024, 4, 2))
    record_snapshots(tables, [snapshot(day, space="s1") for day in days])
    record_snapshots(tables, [snapshot(date(2024, 4, 16), space="s1", state="refused")])
    shown = userrep("spaces", "show", "s1", "--config", config)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert {"space_id: s1", "state: candidate", "trained_until: 2024-04-01", "valid_loss: 0.1235"} <= {*lines}
    assert "valid_loss.behaviour_7d" not in shown.out
    assert lines[-2:] == ["snapshot s1-20240402-r1: 2 users", "snapshot s1-20240409-r1: 2 users"]
    found = json.loads(userrep("spaces", "show", "s1", "--config", config, "--json").out)
    assert found["manifest"]["metrics"] == {"valid_loss": 0.123456, "valid_loss.behaviour_7d": 0.5}
    assert [of["as_of"] for of in found["snapshots"]] == ["2024-04-02", "2024-04-09"]


def test_the_model_card_of_a_space_is_printed_on_request_and_json_is_as_without_it(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path
) -> None:
    add_trained_space(tmp_path, tables)
    card = userrep("spaces", "show", "s1", "--config", config, "--card")
    assert (card.code, card.err) == (0, "")
    assert card.out.startswith("# Space s1\n\nA vector of 16 numbers per user and date")
    assert "valid_loss: 0.1235" not in card.out
    as_json = [userrep("spaces", "show", "s1", "--config", config, "--json", *more) for more in ([], ["--card"])]
    assert as_json[0].out == as_json[1].out


def test_a_space_whose_artifact_is_not_the_registered_one_is_not_shown(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path
) -> None:
    add_spaces(tables, "s1", content_hash="0" * 64)
    missing = userrep("spaces", "show", "s1", "--config", config)
    assert (missing.code, missing.out, len(missing.faults)) == (1, "", 1)
    assert str(tmp_path / "root/artifacts/spaces/s1") in missing.faults[0]


@pytest.mark.parametrize("option", ["--model", "--labels"])
def test_a_saved_model_is_judged_only_with_labels(userrep: Userrep, no_spark: None, config: Path, option: str) -> None:
    answer = userrep("spaces", "diff", "s1", "s2", "--config", config, option, "somewhere")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == ["--model and --labels must be given together: a saved pipeline and labels to evaluate it."]


def test_a_promotion_and_a_retirement_name_their_space(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables
) -> None:
    add_spaces(tables, "s1", "s2")
    for space_id in ("s1", "s2"):
        mark_ready(tables, find_space(tables, space_id))
    said = [
        userrep("spaces", *command.split(), "--config", config).out
        for command in ("promote s1 --dry-run", "promote s1", "promote s2", "rollback", "retire s2")
    ]
    assert said == [
        "space s1 would serve; serving now: none\nconsumers that would move: none\n"
        "consumers not ready, which block it: none\nconsumers that stay pinned: none\n",
        "space s1 is serving\n",
        "space s2 is serving\n",
        "space s1 is serving again\n",
        "space s2 is retired\n",
    ]
    assert [find_space(tables, space_id).state for space_id in ("s1", "s2")] == ["serving", "retired"]


def test_a_space_reaches_its_consumers_by_the_command_line_without_spark(
    userrep: Userrep, no_spark: None, tmp_path: Path
) -> None:
    config = config_file(tmp_path)

    def answer_of(command: str, *more: str, code: int = 0) -> Any:
        """Run a command both ways; return what it says as JSON, or its faults."""
        answer = userrep(*command.split(), *more, "--config", config, "--json")
        assert answer.code == code, answer.err
        return answer.faults if code else json.loads(answer.out)

    tables = FileTables(None, str(tmp_path / "root"))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l", trained_until=date(2024, 5, 1), content_hash="x")
    assert answer_of("spaces promote s1", code=2)[0].startswith("space s1 is candidate; only a ready space can serve.")
    for space_id in ("s1", "s2"):
        mark_ready(tables, find_space(tables, space_id))
    answer_of("spaces promote s1")
    answer_of("consumers register ads", "--owner", "team ads")
    answer_of("consumers register mail", "--owner", "team mail", "--pin", "s1")
    answer_of("consumers register search", "--owner", "team search")
    answer_of("consumers ready search s2")
    assert answer_of("consumers register ads", "--owner", "me", code=2) == [
        "consumer ads belongs to team ads. Choose another name, or ask its owner to remove it."
    ]
    planned = answer_of("spaces promote s2 --dry-run")
    names = {what: [c["name"] for c in planned[what]] for what in ("moves", "blocks", "pinned")}
    assert names == {"moves": ["search"], "blocks": ["ads"], "pinned": ["mail"]}
    assert (planned["serving"], planned["space_id"], planned["would_serve"]) == ("s1", "s2", False)
    for_people = userrep("spaces", "promote", "s2", "--dry-run", "--config", config).out.splitlines()
    assert for_people == [
        "space s2 would not serve; serving now: s1",
        "consumers that would move: search",
        "consumers not ready, which block it: ads",
        "consumers that stay pinned: mail (s1)",
        "consumers that follow and have no verdict: ads, search",
    ]
    assert (
        "consumers that follow and have no verdict: ads, search"
        in userrep("spaces", "promote", "s2", "--config", config).err
    )
    refused = answer_of("spaces promote s2", code=3)
    assert refused[0] == "space s2 is not promoted: a consumer that follows is not ready for it. Nothing has changed."
    assert f"`userrep consumers ready ads s2 --config {config}` once" in refused[1]
    answer_of("consumers ready ads s2")
    assert answer_of("spaces promote s2 --dry-run")["would_serve"]
    assert [space["state"] for space in answer_of("spaces list")["spaces"]] == ["serving", "ready"]
    answer_of("spaces promote s2")
    uses = {c["name"]: (c["space_id"], c["follows"]) for c in answer_of("consumers list")["consumers"]}
    assert uses == {"ads": ("s2", True), "mail": ("s1", False), "search": ("s2", True)}
    assert answer_of("spaces rollback") == {"serving": "s1"}
    answer_of("spaces promote s2")
    assert "consumer mail (owner team mail) is pinned to it" in answer_of("spaces retire s1", code=2)[0]
    answer_of("consumers pin mail serving")
    answer_of("spaces retire s1")
    assert answer_of("consumers pin mail s1", code=2) == ["space s1 is retired. Spaces that can be used: s2."]
    assert answer_of("spaces rollback", code=2) == ["rollback: no other space has served before."]
    answer_of("consumers remove mail")
    listed = userrep("consumers", "list", "--config", config).out.splitlines()
    assert [line.split()[:5] for line in listed[1:]] == [
        ["ads", "team", "ads", "serving", "(s2)"],
        ["search", "team", "search", "serving", "(s2)"],
    ]
    assert [space["in_use"] for space in answer_of("spaces list")["spaces"]] == [None, "serving"]


TASTES = Tastes.drawn(400)


def compare(userrep: Userrep, config: Path, labels: Path | str, *more: str) -> Answer:
    return userrep("spaces", "compare", OLD, NEW, "--labels", str(labels), "--config", config, *more)


def test_a_space_that_fails_is_refused_by_the_exit_code_and_the_verdict_is_recorded(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path
) -> None:
    tables = planted_tables(tmp_path / "root", noise, TASTES)
    labels = labels_of(TASTES).rename_columns(["who", "when", "label"])
    path = written(labels, tmp_path)
    columns = ("--user-col", "who", "--time-col", "when")
    register_consumer(tables, "ads", owner="team")
    answer = compare(userrep, config, path, *columns, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["verdict"], found["num_labels"], found["consumer"]) == (3, "fail", 400, None)
    assert found["interval"][0] <= found["difference"] <= found["interval"][1] < 0
    assert newest_verdicts(tables) == []
    answer = compare(userrep, config, path, *columns, "--consumer", "ads")
    assert answer.code == 3
    assert answer.out.splitlines()[-1].startswith("verdict: fail for a model that is trained again on s002-b: -0.")
    assert "verdict recorded for consumer ads" in answer.err
    (verdict,) = newest_verdicts(tables)
    assert (verdict.verdict, verdict.label_table) == ("fail", LabelTable(path, "who", "when"))
    planned = userrep("spaces", "promote", NEW, "--dry-run", "--config", config)
    assert f"verdict of ads: {verdict}" in planned.out.splitlines()
    promoted = json.loads(userrep("spaces", "promote", NEW, "--dry-run", "--config", config, "--json").out)
    assert promoted["verdicts"]["ads"]["verdict"] == "fail"


def test_a_comparison_refuses_unknown_names_before_it_reads_labels(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path
) -> None:
    planted_tables(tmp_path / "root", rotated, Tastes.drawn(3))
    answer = compare(userrep, config, tmp_path / "nowhere", "--consumer", "ads")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults[0].startswith("consumer ads: not registered. Known consumers: none.")
    answer = compare(userrep, config, tmp_path / "nowhere")
    assert (answer.code, answer.faults) == (2, [f"--labels {tmp_path}/nowhere: not found."])
    unknown = userrep("spaces", "compare", OLD, "s9", "--labels", "x", "--config", config)
    assert (unknown.code, unknown.faults[0].split(". ")[0]) == (2, "space s9: not in the registry")
    bad = compare(userrep, config, tmp_path / "nowhere", "--consumer", "Ads")
    assert (bad.code, "consumer 'Ads' is not a valid name" in bad.err) == (2, True)
