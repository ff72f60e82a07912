"""Ids, names and places from outside: what touches a path or a predicate is a name, and all else is refused."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import EVIL, TEXTS, fuzzed, is_one_line, refusal
from userrep.cli.options import as_date, checked_consumer_name, checked_space_id
from userrep.config import parse_config
from userrep.ids import checked_name, snapshot_id
from userrep.joins.options import JoinOptions
from userrep.sources.id_files import read_ids
from userrep.spaces import consumers, registry
from userrep.spaces.registry_state import artifact_path
from userrep.store.export_folder import check_out
from userrep.store.file_tables import FileTables
from userrep.store.write_access import check_new_folder, check_writable

pytestmark = pytest.mark.fast

OTHERS = [text for text in EVIL if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text)]
EVENTS = {"path": "l", "columns": {"user_id": "u", "item_id": "i", "event_at": "a"}}
# Places that are looked into; those of clouds would be waited for.
PLACES = st.one_of(
    st.sampled_from([text for text in EVIL if "s3:" not in text]),
    st.text(alphabet=st.sampled_from("ab./:?%\n\0\u2028é ~#&=*[]"), max_size=30).map(lambda text: f"x{text}"),
    st.sampled_from(["://", "x://y", "?://", "a://b?c\nd", "file:%00", "a:/b", "1:/b", "mock://\n", "file:x?y"]),
)


@fuzzed(200)
@given(text=TEXTS)
def test_only_a_name_passes_as_one(text: str) -> None:
    is_name = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text) is not None
    for check in (lambda name: checked_name(name, "space"), checked_space_id, checked_consumer_name):
        error = refusal(lambda check=check: check(text))
        assert (error is None) == is_name
        assert error is None or is_one_line(error)


@pytest.mark.parametrize("text", OTHERS, ids=ascii)
def test_nothing_but_a_name_reaches_the_registry_or_a_path(tmp_path: Path, text: str) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    added: dict[str, Any] = {"lineage_id": "l1", "trained_until": date(2024, 5, 1), "content_hash": "x"}
    for act in (
        lambda: registry.add_candidate(tables, space_id=text, **added),
        lambda: artifact_path(text, "x"),
        lambda: artifact_path("s1", text),
        lambda: consumers.register_consumer(tables, text, owner="o"),
        lambda: consumers.pin_consumer(tables, text, "s1"),
        lambda: consumers.remove_consumer(tables, text),
        lambda: snapshot_id(text, date(2024, 5, 1), 1),
        lambda: parse_config({"root": "r", "events": EVENTS, "item_vectors": {text: {"kind": "als"}}}, "c"),
        lambda: parse_config({"root": "r", "events": EVENTS, "tracking": {"model": text}}, "c"),
        lambda: parse_config({"catalog": text, "schema": "s", "events": EVENTS}, "c"),
    ):
        error = refusal(act)
        assert error is not None
        assert is_one_line(error)
    if text:  # none means the one that serves
        error = refusal(lambda: registry.find_space(tables, text))
        assert error is not None
        assert is_one_line(error)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "registry" not in str(path)]


@fuzzed(150)
@given(place=PLACES)
def test_a_place_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, place: str) -> None:
    checks = [check_out, check_new_folder]
    if not place.startswith(("/", "../", "file:")):
        checks.append(check_writable)  # makes what is not there
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        for check in checks:
            error = refusal(lambda check=check: check(place))
            assert error is None or is_one_line(error) or not place.isprintable() or len(place) > 1000


@fuzzed(100)
@given(content=st.binary(max_size=200) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_file_of_user_ids_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes(content)
    ids: list[str] = []
    error = refusal(lambda: ids.extend(read_ids(file)))
    assert bool(ids) == (error is None)
    assert error is None or is_one_line(error)
    assert all(0 < len(user_id.encode()) <= 1024 and "\n" not in user_id for user_id in ids)


@fuzzed(100)
@given(text=TEXTS)
def test_a_date_or_an_option_of_a_join_is_read_or_refused(text: str) -> None:
    refusal(lambda: as_date(text))
    for option in ("missing", "vectors", "availability"):
        refusal(lambda option=option: JoinOptions(**{option: text}))
