"""Run representations and tasks: compute vectors with their timings, then each task's results with bootstraps."""

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple
from warnings import catch_warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController, threadpool_limits

from userrep.config import Evaluation
from userrep.errors import UsageError
from userrep.evaluation.families import EMBEDDING
from userrep.evaluation.metrics import Counts, Floats32, Scores, bootstrapped, resampled_users, value_of
from userrep.evaluation.representation import Context, Fit, Matrix
from userrep.evaluation.results import Cost, Measured
from userrep.evaluation.tasks.task import LeftOut, Problem, Task, Truth

logger = logging.getLogger(__name__)


class Described(NamedTuple):
    """A representation's vectors of all rows, x_NF, and their cost."""

    name: str
    x_NF: Floats32
    cost: Cost


def fit_and_describe(name: str, fit: Fit, context: Context) -> tuple[Matrix, Described]:
    """Fit a representation and compute the rows' vectors, both timed."""
    started = time.monotonic()
    with threadpool_limits(1, user_api="blas"):  # the same bits on any number of cores
        matrix = fit(context)
        described = describe(name, matrix, context, fit_seconds=time.monotonic() - started)
    logger.info(f"{name}: {described.cost.width} values per row, fitted in {described.cost.fit_seconds:.1f} s")
    return matrix, described


def describe(name: str, matrix: Matrix, context: Context, *, fit_seconds: float = 0.0) -> Described:
    """Compute the rows' vectors by a fitted representation, timed."""
    started = time.monotonic()
    x_NF = matrix(context)
    cost, num_rows = Cost(fit_seconds, time.monotonic() - started, *x_NF.shape), len(context.rows)
    assert len(x_NF) == num_rows, f"{name}: expected {num_rows} rows, got {len(x_NF)}"
    assert x_NF.dtype == np.float32, f"{name}: expected float32, got {x_NF.dtype}"
    assert np.isfinite(x_NF).all(), f"{name}: expected finite values, got NaN or infinity"
    return Described(name, x_NF, cost)


def measure(
    tasks: Sequence[Task], truth: Truth, described: Sequence[Described], settings: Evaluation
) -> tuple[list[Measured], dict[str, str]]:
    """Evaluate all representations at all tasks; return the results, and the reasons for tasks left out.

    A task's probes run in one thread per core. Libraries use no threads of their own, so that results are the same on
    any machine.
    """
    limit = partial(ThreadpoolController().limit, limits=1)  # finds the libraries once, before threads run
    weight_UB = resampled_users(len(truth.rows.user_ids), settings.num_bootstraps, settings.seed)
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    with (
        catch_warnings(action="ignore", category=ConvergenceWarning),  # filters are shared by all threads
        limit(),
        ThreadPoolExecutor(os.cpu_count(), "probes", limit) as pool,
    ):
        for task in tasks:
            started = time.monotonic()
            seeds = [settings.seed + k for k in range(settings.num_seeds if task.is_drawn else 1)]
            candidates = [task.problem(truth, seed) for seed in seeds]
            problems = [problem for problem in candidates if not isinstance(problem, LeftOut)]
            if len(problems) < len(candidates):
                left_out[task.name] = next(str(reason) for reason in candidates if isinstance(reason, LeftOut))
                logger.info(f"{task.name}: left out: {left_out[task.name]}")
                continue
            judge = partial(_measured, task.name, problems, weight_UB)
            results = [result for part in pool.map(judge, described) for result in part]
            measured += results
            logger.info(f"{task.name}: {time.monotonic() - started:.0f} s; {_headline(results)}")
    return measured, left_out


def _headline(results: Sequence[Measured]) -> str:
    """Return the values of the embedding and of the best three at a task's first metric, for the progress."""
    metric = results[0].metric
    best_first = sorted((result for result in results if result.metric == metric), key=lambda result: -result.value)
    shown = [result for rank, result in enumerate(best_first) if rank < 3 or result.representation == EMBEDDING]
    return f"{metric}: {', '.join(f'{result.representation} {result.value:.4f}' for result in shown)}"


def check_measured(measured: Sequence[Measured], left_out: dict[str, str]) -> None:
    """Raise UsageError with all reasons if nothing was measured."""
    if not measured:
        raise UsageError([f"evaluate: {name}: {reason}." for name, reason in left_out.items()])


def _num_by_class(scores: Scores) -> dict[str, int]:
    """Count the test examples of each class, averaged over labels; empty without labels, or if they are numbers."""
    known = scores.label_MK[np.isfinite(scores.label_MK)]  # seeds of a list of look-alikes have no label
    if not known.any() or not np.isin(known, (0, 1)).all():
        return {}
    num_positives, num_negatives = (
        round(float(is_class_MK.sum(axis=0).mean())) for is_class_MK in (scores.label_MK > 0, scores.label_MK <= 0)
    )
    return {"test_positives": num_positives, "test_negatives": num_negatives}


def _measured(task: str, problems: Sequence[Problem], weight_UB: Counts, described: Described) -> list[Measured]:
    """Choose the setting on the first seed's examples, then fit and test on those of every seed."""
    choice = problems[0].choose(described.x_NF)
    scores = [problem.scores(described.x_NF, choice) for problem in problems]
    return [
        Measured(
            task,
            metric,
            described.name,
            tuple(value_of(metric, seed_scores[metric]) for seed_scores in scores),
            np.mean([bootstrapped(metric, seed_scores[metric], weight_UB) for seed_scores in scores], axis=0),
            str(choice),
            {**problems[0].num_examples, **_num_by_class(scores[0][metric])},
        )
        for metric in scores[0]
    ]
