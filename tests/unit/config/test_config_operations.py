"""Settings of snapshots, drift, evaluation and the session."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.configurations import SMALLEST, USERS, fault_of, loaded, parsed

pytestmark = pytest.mark.fast


def test_drift_limits_that_are_left_out_keep_their_defaults_and_null_switches_one_off() -> None:
    defaults = parsed().drift
    assert (defaults.warn.psi, defaults.warn.rows_change, defaults.fail.psi) == (0.25, 0.2, None)
    changed = parsed(drift={"warn": {"psi": 0.5, "rows_change": None}, "fail": {"psi": 2}}).drift
    assert changed.warn == defaults.warn.model_copy(update={"psi": 0.5, "rows_change": None})
    assert changed.fail == defaults.fail.model_copy(update={"psi": 2.0})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"drift": {"warn": {"psi": -0.1}}}, "drift.warn.psi: must be at least 0"),
        ({"drift": {"warn": {"psii": 0.1}}}, "unknown key drift.warn.psii; did you mean psi?"),
        ({"drift": {"warn": 3}}, "drift.warn: must be a section with keys, got 3."),
        ({"gates": {"min_live_dims_share": -0.5}}, "gates.min_live_dims_share: must be at least 0, got -0.5."),
        ({"evaluation": {"horizons_days": []}}, "evaluation.horizons_days: must not be empty, got []."),
        ({"evaluation": {"newcomer_events": [1001]}}, "evaluation.newcomer_events.0: must be at most 1000, got 1001."),
        ({"tracking": {"uri": ""}}, "tracking.uri: must not be empty."),
        (
            {"stream": {"redis": {"url": "redis://h", "expires_after": "0s"}}},
            "stream.redis.expires_after: must be longer",
        ),
        ({"spark": {"conf": "spark.ui.enabled"}}, "spark.conf: must be a section with keys."),
        ({"spark": {"conf": {"a": None}}}, "spark.conf.a: must be text."),
    ],
)
def test_a_setting_out_of_its_range_is_refused(sections: dict[str, Any], said: str) -> None:
    assert fault_of({**SMALLEST, **sections}).startswith(said)


def test_numbers_of_an_evaluation_are_sorted_and_newcomers_may_be_left_out() -> None:
    settings = parsed(evaluation={"horizons_days": [30, 1, 7], "newcomer_events": [10, 0]}).evaluation
    assert (settings.horizons_days, settings.newcomer_events) == ([1, 7, 30], [0, 10])
    assert parsed(evaluation={"newcomer_events": []}).evaluation.newcomer_events == []


def test_attributes_of_an_evaluation_have_names_that_tasks_can_carry() -> None:
    settings = parsed(users=USERS, evaluation={"attributes": ["Home.Country", "age"]}).evaluation
    assert settings.attributes == ["Home.Country", "age"]
    assert settings.attribute_names == ["home_country", "age"]


def test_numbers_and_booleans_of_spark_conf_become_the_text_that_spark_takes() -> None:
    written = {"a": True, "b": False, "c": 1, "d": 0.5, "e": "True"}
    assert parsed(spark={"conf": written}).spark.conf == {"a": "true", "b": "false", "c": "1", "d": "0.5", "e": "True"}


@pytest.mark.parametrize(("text", "wanted"), [("4GiB", 2**32), ("500 MB", 500_000_000), ("1000", 1000)])
def test_memory_is_a_number_of_bytes_or_one_with_a_unit(tmp_path: Path, text: str, wanted: int) -> None:
    assert loaded(tmp_path, f"spark.item_vectors_bytes={text}").spark.item_vectors_bytes == wanted


@pytest.mark.parametrize("text", ["0", "-1", "much"])
def test_text_that_is_no_amount_of_memory_is_refused(text: str) -> None:
    fault = fault_of({**SMALLEST, "spark": {"item_vectors_bytes": text}})
    assert "spark.item_vectors_bytes: " in fault


def test_a_warning_must_not_come_after_the_error() -> None:
    assert parsed(freshness={"warn_after": "26h", "error_after": "26h"}).freshness.warn_after == timedelta(hours=26)
    fault = fault_of({**SMALLEST, "freshness": {"warn_after": "3d", "error_after": "50h"}})
    assert fault == "freshness: warn_after must not be longer than error_after. Swap them."


def test_nothing_is_retrained_without_the_section_and_at_most_once_a_day() -> None:
    assert parsed().retraining is None
    policy = parsed(retraining={}).retraining
    assert policy is not None
    assert (policy.every, policy.on_drift, policy.promote) == (timedelta(days=28), True, "never")
    fault = fault_of({**SMALLEST, "retraining": {"every": "0d"}})
    assert fault == "retraining: every must be at least 1d. Set a number of days, such as 28d."


def test_alerts_name_a_prom_file_and_an_http_url_whose_value_is_never_shown() -> None:
    alerts = parsed(alerts={"prometheus_file": "/x/u.prom", "webhook": "${HOOK}"}).alerts
    assert (alerts.prometheus_file, alerts.webhook) == ("/x/u.prom", "${HOOK}")
    assert "S3CRET" not in repr(parsed(alerts={"webhook": "https://hooks/S3CRET"}))
    fault = fault_of({**SMALLEST, "alerts": {"webhook": "ftp://S3CRET"}})
    assert fault.startswith("alerts.webhook: must match the pattern")
    assert "S3CRET" not in fault
    assert fault_of({**SMALLEST, "alerts": {"prometheus_file": "u.txt"}}).startswith(
        "alerts.prometheus_file: must match the pattern"
    )
