"""Representations described and judged: vectors on the clock, then each task's figures, by resampled users too."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.metrics import Counts, Scores, bootstrapped, resampled_users, value_of
from userrep.evaluation.representation import Context, Floats32, Representation
from userrep.evaluation.results import Cost, Measured
from userrep.evaluation.tasks.task import LeftOut, Problem, Task, Truth

Report = Callable[[str], None]
Map = Callable[..., Iterator[Any]]

_LEAST_FOR_WORKERS = 20_000  # rows; with fewer, probes are fitted in less time than workers take to start


@contextmanager
def parallel_map(num_rows: int) -> Iterator[Map]:
    """Give a ``map`` over processes, one for each core of the driver; with few rows, the one that there is.

    Probes keep to one thread, so that figures come out alike anywhere; what runs in parallel are probes.
    """
    if num_rows < _LEAST_FOR_WORKERS:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a fork would share Spark's sockets
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=threadpool_limits, initargs=(1,)) as pool:

        def each(function: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
            with _without_main():  # whoever is missing starts with the call
                return pool.map(function, values)

        yield each


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep processes that start meanwhile from running the caller's script: it may lack the guard that spawn wants."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class Described:
    """A representation's vectors of all rows, x_NF, and what they cost."""

    name: str
    x_NF: Floats32
    cost: Cost


def fitted_and_described(one: Representation, context: Context, report: Report) -> Described:
    """Fit a representation and describe the rows by it, on the clock."""
    started = time.monotonic()
    one.fit(context)
    fit_seconds = time.monotonic() - started
    described = described_by(one, context, fit_seconds=fit_seconds)
    report(f"{one.name}: {described.cost.width} numbers a row, fitted in {fit_seconds:.1f} s")
    return described


def described_by(one: Representation, context: Context, *, fit_seconds: float) -> Described:
    """Describe the rows by a representation that is fitted, on the clock."""
    started = time.monotonic()
    x_NF = one.matrix(context)
    seconds = time.monotonic() - started
    assert x_NF.shape[0] == len(context.rows), f"{one.name}: {len(x_NF)} rows, wanted {len(context.rows)}"
    assert x_NF.dtype == np.float32, f"{one.name}: {x_NF.dtype}, wanted float32"
    assert np.isfinite(x_NF).all(), f"{one.name}: not all numbers are finite"
    return Described(one.name, x_NF, Cost(fit_seconds, seconds, *x_NF.shape))


def measure(
    tasks: Sequence[Task],
    truth: Truth,
    described: Sequence[Described],
    config: Config,
    report: Report,
    *,
    each: Map = map,
) -> tuple[list[Measured], dict[str, str]]:
    """Judge all representations at all tasks, ``each`` by itself; return what was measured, and why tasks are left out.

    Other processes get a copy of a representation and of what the task's labels are made from.
    """
    settings, truth = config.evaluation, truth.lean()
    weight_UB = resampled_users(len(truth.rows.user_ids), settings.num_bootstraps, settings.seed)
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    for task in tasks:
        started = time.monotonic()
        seeds = [settings.seed + k for k in range(settings.num_seeds if task.is_drawn else 1)]
        made = [task.problem(truth, seed) for seed in seeds]
        problems = [problem for problem in made if not isinstance(problem, LeftOut)]
        if len(problems) < len(made):
            left_out[task.name] = next(str(reason) for reason in made if isinstance(reason, LeftOut))
            report(f"{task.name}: left out; {left_out[task.name]}")
            continue
        for found in each(partial(_measured, task, problems, weight_UB), described):
            measured += found
        report(f"{task.name}: {time.monotonic() - started:.0f} s")
    return measured, left_out


def check_measured(measured: Sequence[Measured], left_out: dict[str, str]) -> None:
    """Refuse an evaluation that has left all out. Raises UsageError with all reasons."""
    if not measured:
        raise UsageError([f"evaluate: {name}: {reason}." for name, reason in left_out.items()])


def _num_by_label(scores: Scores) -> dict[str, int]:
    """Count the test examples of either kind, of several labels the mean; nothing where examples have no labels."""
    if not scores.label_MK.any():
        return {}
    num_positives = round(float((scores.label_MK > 0).sum(axis=0).mean()))
    return {"test_positives": num_positives, "test_negatives": len(scores.label_MK) - num_positives}


def _measured(task: Task, problems: Sequence[Problem], weight_UB: Counts, one: Described) -> list[Measured]:
    """Choose the setting with the first seed, then fit and test with each. One thread, so that figures repeat."""
    with threadpool_limits(1):
        choice = problems[0].chosen(one.x_NF)
        scores = [problem.scores(one.x_NF, choice) for problem in problems]
    return [
        Measured(
            task.name,
            metric,
            one.name,
            tuple(value_of(metric, of_seed[metric]) for of_seed in scores),
            np.mean([bootstrapped(metric, of_seed[metric], weight_UB) for of_seed in scores], axis=0),
            str(choice),
            {**problems[0].num_examples, **_num_by_label(scores[0][metric])},
        )
        for metric in task.metrics
        if metric in scores[0]
    ]
