"""``userrep spaces compare``: what a consumer's labels say about replacing one space by another."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation import space_comparison
from userrep.evaluation.consumer_labels import read_label_rows
from userrep.evaluation.label_slices import label_slices
from userrep.evaluation.space_comparison import ALL, AUTO, TOLERATED_LOSS, Difference, Split
from userrep.items.versions import lineage_of
from userrep.logs import in_columns
from userrep.spaces.consumer_model import read_model
from userrep.spaces.mapping import load_map
from userrep.spaces.registry import Space
from userrep.spaces.verdicts import LabelTable, Verdict
from userrep.store.tables import Tables
from userrep.utc import EPOCH, utc_now

_WAYS = {
    space_comparison.RETRAINED: "a model that is trained again on {new}",
    space_comparison.MAPPED: "a model of {old} that reads {new} through the map",
    space_comparison.MODEL: "the model of --model, which reads {new} through the map",
}


@dataclass(frozen=True)
class SpaceComparison:
    """The result of ``userrep spaces compare``.

    ``judged``: the comparison that the verdict is from: ``model`` if a model was given, otherwise ``retrained``.
    ``judged_from``: time of the first judged label (UTC). ``num_fitted``: labels that probes were fitted on.
    ``comparisons``: by what the consumer does with the new space, then by slice of the labels.
    """

    old: str
    new: str
    metric: str
    judged: str
    judged_from: datetime
    num_fitted: int
    comparisons: Mapping[str, Mapping[str, Difference]]

    @property
    def overall(self) -> Difference:
        """The difference that decides the verdict."""
        return self.comparisons[self.judged][ALL]

    @property
    def result(self) -> dict[str, Any]:
        """The comparison as ``--json`` prints it."""
        comparisons = {
            way: asdict(slices[ALL]) | {"slices": {name: asdict(d) for name, d in slices.items() if name != ALL}}
            for way, slices in self.comparisons.items()
        }
        return comparisons[self.judged] | vars(self) | {"tolerated_loss": TOLERATED_LOSS, "comparisons": comparisons}

    def verdict_for(self, consumer: str, label_table: LabelTable) -> Verdict:
        """Return the verdict to record for a consumer."""
        overall = self.overall
        return Verdict(
            consumer=consumer,
            old_space_id=self.old,
            new_space_id=self.new,
            verdict=overall.verdict,
            metric=self.metric,
            difference=overall.difference,
            low=overall.interval[0],
            high=overall.interval[1],
            num_labels=overall.num_labels,
            label_table=label_table,
            compared_at=utc_now(),
        )


def compare_spaces(
    tables: Tables, config: Config, *, old: Space, new: Space, label_table: LabelTable, metric: str = AUTO
) -> SpaceComparison:
    """Compare two spaces on a consumer's labels. Nothing is written.

    Above ``evaluation.max_rows`` labels, users are sampled. Cost: that of ``read_label_rows``, ``label_slices`` and
    ``compare``; below a root of files, none of it needs Spark.

    Raises
    ------
    UsageError
        If both are the same space, the metric is unknown, there is no map from ``new`` to ``old``, the model is not
        one of ``old``, or the labels are missing, unreadable, too few, of one value, or without vectors of both spaces.
    """
    if old.space_id == new.space_id:
        raise UsageError(f"space {old.space_id} cannot be compared with itself. Name two spaces.")
    if metric not in space_comparison.METRICS:
        raise UsageError(f"--metric {metric}: unknown. Choose one of: {', '.join(space_comparison.METRICS)}.")
    linear_map = load_map(tables, new, old)
    model, path = None, label_table.model
    if path is not None:
        model = read_model(path)
        model.check_fits(old.space_id, len(linear_map.bias_D))
    settings = config.evaluation
    labels = read_label_rows(label_table, tables, old, new, most=settings.max_rows)
    split = Split.of(labels, metric, seed=settings.seed)
    attributes = config.users.attribute_names if config.users else []
    users, as_of_M = labels.users.take(split.test), labels.as_of_N[split.test]
    slices = label_slices(tables, lineage_of(config), attributes, users=users, as_of_M=as_of_M)
    comparisons = space_comparison.compare(labels, split, linear_map, settings, slices=slices, model=model)
    judged = space_comparison.RETRAINED if model is None else space_comparison.MODEL
    since, num_fitted = EPOCH + timedelta(microseconds=split.cut_us), len(labels) - len(split.test)
    return SpaceComparison(old.space_id, new.space_id, split.metric, judged, since, num_fitted, comparisons)


def comparison_lines(comparison: SpaceComparison) -> Iterator[str]:
    """Format a comparison for the terminal."""
    old, new, overall = comparison.old, comparison.new, comparison.overall
    yield (
        f"{comparison.metric.upper()} of {new} next to {old}, {overall.num_labels:,} labels from "
        f"{comparison.judged_from:%Y-%m-%d %H:%M} UTC on, probes fitted on {comparison.num_fitted:,} earlier labels"
    )
    head = ["users", "labels", old, new, "difference", "90% interval", "verdict"]
    for way, compared in comparison.comparisons.items():
        yield f"{_WAYS[way].format(old=old, new=new)}:"
        rows = [_row(name, difference) for name, difference in compared.items()]
        yield from (f"  {line}" for line in in_columns(head, rows))
    low, high = overall.interval
    yield (
        f"verdict: {overall.verdict} for {_WAYS[comparison.judged].format(old=old, new=new)}: "
        f"{overall.difference:+.4f} [{low:+.4f}, {high:+.4f}]; a loss of {TOLERATED_LOSS} is tolerated"
    )


def _row(name: str, difference: Difference) -> list[str]:
    low, high = difference.interval
    values = f"{difference.old_value:.4f}", f"{difference.new_value:.4f}", f"{difference.difference:+.4f}"
    return [name, f"{difference.num_labels:,}", *values, f"[{low:+.4f}, {high:+.4f}]", difference.verdict]
