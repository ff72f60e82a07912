"""The demo: its configuration and its generated log."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from userrep.config import Config, load_config
from userrep.errors import UsageError
from userrep.synthetic.generator import LogSpec
from userrep.workflows import demo

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The demo's configuration with its log below a folder of this test."""
    return demo.demo_config([f"events.path={tmp_path}/log/events", f"root={tmp_path}"])


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LogSpec, str]]:
    """Return the logs that were to be generated: none is."""
    asked: list[tuple[LogSpec, str]] = []
    monkeypatch.setattr(demo, "generate_small_log", lambda spec, folder: asked.append((spec, folder)))
    return asked


def test_the_demo_takes_overrides_and_refuses_bad_ones() -> None:
    assert demo.demo_config(["model.latent_dim=64"]).model.latent_dim == 64
    with pytest.raises(UsageError, match=r"--set modle.latent_dim: unknown key modle; did you mean model\?"):
        demo.demo_config(["modle.latent_dim=64"])


def test_further_commands_use_the_file_of_the_repository_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/demo.yaml").write_text("root: ../build/demo")
    assert demo.config_file() == Path("conf/demo.yaml")
    assert not Path("build").exists()


def test_without_the_repository_further_commands_use_a_file_that_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = demo.config_file()
    assert file == Path("build/demo/userrep.yaml")
    assert load_config(file) == demo.demo_config([])
    file.write_text(file.read_text() + "gates: {min_users: 5}\n")
    edited = file.read_text()
    assert demo.config_file() == file
    assert file.read_text() == edited


def test_the_log_holds_the_days_that_the_demo_is_about(config: Config) -> None:
    first, end = demo.SPEC.first_day, demo.SPEC.first_day + timedelta(days=demo.SPEC.num_days)
    until = config.training.as_ofs.until
    assert until is not None
    assert first + timedelta(days=max(config.windows_days)) < until
    assert until + timedelta(days=max(config.future_days)) <= demo.AS_OF <= end


def test_a_log_is_generated_once_and_again_for_another_specification(
    config: Config, generated: list[tuple[LogSpec, str]], tmp_path: Path, lines: list[str]
) -> None:
    folder = f"{tmp_path}/log"
    demo.ensure_log(config, demo.SPEC)
    demo.ensure_log(config, demo.SPEC)
    assert generated == [(demo.SPEC, folder)]
    assert lines == [f"generating 150 days of events for 3,000 users in {folder}"]
    other = LogSpec(num_users=3000, num_items=600, first_day=date(2024, 1, 1), num_days=150, seed=8)
    demo.ensure_log(config, other)
    assert generated[1:] == [(other, folder)]


def test_a_log_of_the_users_own_is_never_replaced(
    config: Config, generated: list[tuple[LogSpec, str]], tmp_path: Path
) -> None:
    (tmp_path / "log" / "events").mkdir(parents=True)
    (tmp_path / "log" / "events" / "a.parquet").write_text("mine")
    with pytest.raises(UsageError, match=r"events\.path: the demo would replace the files in .*log \(events\) by a"):
        demo.ensure_log(config, demo.SPEC)
    assert generated == []
    assert [path.name for path in (tmp_path / "log").rglob("*")] == ["events", "a.parquet"]


def test_a_log_whose_generation_was_cut_off_is_generated_again(
    config: Config, generated: list[tuple[LogSpec, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "generate_small_log", cut_off)
        with pytest.raises(KeyboardInterrupt):
            demo.ensure_log(config, demo.SPEC)
    demo.ensure_log(config, demo.SPEC)
    assert len(generated) == 1
