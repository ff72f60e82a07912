"""OpenLineage events of stages: START, COMPLETE and FAIL, with the tables that a stage reads and writes.

The client decides where events go, by ``lineage.transport``, its configuration file or its environment variables. A
failure of the client is reported and fails no stage.
"""

import atexit
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from userrep.config import Config
from userrep.config.operations import Lineage
from userrep.errors import UsageError, in_one_line

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

logger = logging.getLogger(__name__)

PRODUCER = "https://pypi.org/project/userrep"
_LAST_EVENTS = 5.0  # seconds at the end of the process
START, COMPLETE, FAIL = "START", "COMPLETE", "FAIL"
Columns = Mapping[str, Sequence[tuple[str, str]]]


class StageFacts(NamedTuple):
    """A stage of a run, as its events describe it.

    ``inputs``, ``outputs``: paths, URIs or names in a catalog of tables, with their versions, None if unknown.
    ``columns``: by output table and its column, the (table, column) pairs that it is computed from. ``facts``: of the
    run, such as its id and its space.
    """

    stage: str
    inputs: Mapping[str, int | None]
    outputs: Mapping[str, int | None]
    columns: Mapping[str, Columns]
    facts: Mapping[str, str]


def is_on(config: Config) -> bool:
    """Return whether events are sent: if ``lineage`` is configured, or OPENLINEAGE_URL is set."""
    return config.lineage is not None or bool(os.environ.get("OPENLINEAGE_URL"))


def check_lineage_client(config: Config) -> None:
    """Raise UsageError if events are to be sent and the client is not installed."""
    if is_on(config) and importlib.util.find_spec("openlineage") is None:
        raise UsageError(
            "lineage: needs openlineage-python. Install it with `pip install 'userrep[monitoring]'`, or remove lineage "
            "and OPENLINEAGE_URL."
        )


def dataset_name(location: str) -> tuple[str, str]:
    """Return the namespace and the name of a dataset, as OpenLineage names files: ``s3://bucket`` and a key.

    ``location``: a path, a URI, or the name of a table in a catalog.
    """
    if match := re.fullmatch(r"(\w+://[^/]+)/(.+)", location):
        return match[1], match[2]
    return ("file", location) if location.startswith("/") else ("catalog", location)


class StageEvents:
    """The events of the stages of a process, if the configuration asks for them."""

    def __init__(self, config: Config) -> None:
        self._settings, self._is_on = config.lineage or Lineage(), is_on(config)
        self._client: OpenLineageClient | None = None

    def emit(self, kind: str, stage_id: str, stage: Callable[[], StageFacts], error: str | None = None) -> None:
        """Send an event of a stage. After a failure, which is logged, no more events are sent.

        ``stage_id``: a UUID, which all events of the stage share.
        """
        if not self._is_on:
            return
        try:
            self._emit(kind, stage_id, stage(), error)
        except Exception as fault:
            self._is_on = False
            reason = re.sub(r"\w+://\S+", "URL", in_one_line(fault))  # which may contain a secret
            logger.warning(f"lineage: no more events of this run are sent ({reason})")

    def _emit(self, kind: str, stage_id: str, stage: StageFacts, error: str | None) -> None:
        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
        from openlineage.client.facet_v2 import error_message_run, job_type_job
        from openlineage.client.generated.base import RunFacet

        if self._client is None:
            set_producer(PRODUCER)
            transport = self._settings.transport
            self._client = OpenLineageClient(config={"transport": transport} if transport else None)
            atexit.register(self._client.close, timeout=_LAST_EVENTS)  # transports may send later
        facets: dict[str, Any] = {"userrep": RunFacet().with_additional_properties(**stage.facts)}
        if error is not None:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message=error, programmingLanguage="Python")
        outputs = stage.outputs if kind == COMPLETE else {}
        job_type = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="USERREP", jobType="STAGE")
        self._client.emit(
            RunEvent(
                eventType=RunState[kind],
                eventTime=datetime.now(UTC).isoformat(),
                run=Run(runId=stage_id, facets=facets),
                job=Job(self._settings.namespace, stage.stage, facets={"jobType": job_type}),
                inputs=[InputDataset(*dataset_name(t), facets=_facets(at, {})) for t, at in stage.inputs.items()],
                outputs=[
                    OutputDataset(*dataset_name(table), facets=_facets(at, stage.columns.get(table, {})))
                    for table, at in outputs.items()
                ],
                producer=PRODUCER,
            )
        )


def _facets(version: int | None, columns: Columns) -> dict[str, Any]:
    """Return the facets of a dataset: its version and the lineage of its columns, as far as known."""
    from openlineage.client.facet_v2 import column_lineage_dataset as lineage
    from openlineage.client.facet_v2 import dataset_version_dataset

    fields = {
        column: lineage.Fields([lineage.InputField(*dataset_name(table), field) for table, field in sources])
        for column, sources in columns.items()
    }
    facets: dict[str, Any] = {"columnLineage": lineage.ColumnLineageDatasetFacet(fields)} if fields else {}
    if version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(version))
    return facets
