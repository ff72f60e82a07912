"""Pictures of the notebooks, and the sums behind them. Databricks and scripts find this file next to the notebooks.

Shapes: N users or items, D numbers of a vector.
"""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

Floats = NDArray[np.float64]
MAIN, OTHER, FAINT, PALE = "#c2410c", "#475569", "#cbd5e1", "#fed7aa"


def set_style() -> None:
    """Set the resolution and the style of all pictures of a notebook."""
    style = {"figure.dpi": 144, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    plt.rcParams.update({**style, "figure.constrained_layout.use": True, "axes.titlelocation": "left"})


def unit_vectors(vectors: Iterable[Sequence[float]]) -> Floats:
    """Stack vectors, each scaled to length one, so that products are cosines."""
    stacked_ND = np.stack(list(vectors))
    return stacked_ND / np.maximum(np.linalg.norm(stacked_ND, axis=1, keepdims=True), 1e-9)


def clusters(unit_ND: Floats, num: int) -> NDArray[np.int32]:
    """Return the cluster of each vector, by k-means."""
    return KMeans(num, n_init=4, random_state=0).fit_predict(unit_ND)


def flat_map(unit_ND: Floats) -> Floats:
    """Place vectors on a plane so that neighbors stay neighbors, by t-SNE. Returns x and y."""
    tsne = TSNE(2, init="pca", metric="cosine", perplexity=min(30, len(unit_ND) // 4), random_state=0)
    return tsne.fit_transform(unit_ND).T


def nearest(unit_ND: Floats, among_ND: Floats | None = None) -> tuple[NDArray[np.int64], Floats]:
    """Return the ten nearest users of each user, the nearest first, and all cosines.

    ``among_ND``: vectors of the same users in which the neighbors are looked up; by default ``unit_ND``.
    """
    cosine_NN = unit_ND @ (unit_ND if among_ND is None else among_ND).T
    np.fill_diagonal(cosine_NN, -np.inf)  # a user is no neighbor of itself
    return np.argsort(-cosine_NN, axis=1)[:, :10], cosine_NN


def draw_log(by_day: pd.DataFrame, by_size: pd.DataFrame) -> None:
    """Draw events and active users by day, and users by their number of events."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), width_ratios=[3, 2])
    left.plot(by_day["event_date"], by_day["events"], color=OTHER, label="events")
    left.plot(by_day["event_date"], by_day["users"], color=MAIN, label="active users")
    left.set_ylim(bottom=0)
    left.set_title("Each day")
    left.legend(frameon=False)
    left.tick_params(axis="x", rotation=30)
    right.bar([f"{2 ** int(power):,}" for power in by_size["power"]], by_size["count"], color=OTHER)
    right.set_title("Users by number of events (from, doubling)")
    right.tick_params(axis="x", rotation=45)
    plt.show()


def draw_items(vectors: pd.DataFrame, titles: Mapping[str, str], num_clusters: int = 8) -> None:
    """Draw a map of items per modality, colored by clusters of the first. Columns: modality, item_id, vector, uses."""
    by_modality = {name: vectors[vectors["modality"] == name] for name in titles}
    first = next(iter(by_modality.values()))
    color_of = dict(zip(first["item_id"], clusters(unit_vectors(first["vector"]), num_clusters), strict=True))
    _, panels = plt.subplots(1, len(titles), figsize=(5 * len(titles), 3.6), squeeze=False)
    for panel, (name, rows) in zip(panels[0], by_modality.items(), strict=True):
        items = rows[rows["item_id"].isin(color_of)]
        x, y = flat_map(unit_vectors(items["vector"]))
        panel.scatter(x, y, s=4 + np.sqrt(items["uses"]), c=items["item_id"].map(color_of), cmap="tab10", linewidths=0)
        panel.set_title(titles[name])
        _without_ticks(panel)
    plt.show()


def draw_bars(values: Mapping[str, float], title: str, colors: Sequence[str], low: float = 0.5) -> None:
    """Draw horizontal bars with their values, the first at the top, from ``low`` to 1."""
    _, panel = plt.subplots(figsize=(7, 0.6 + 0.36 * len(values)))
    bars = panel.barh([*values][::-1], [*values.values()][::-1], color=[*colors][::-1])
    panel.bar_label(bars, fmt="%.3f", padding=3)
    panel.set_xlim(low, 1)
    panel.set_title(title)
    plt.show()


def draw_staircase(steps: pd.DataFrame) -> None:
    """Draw which snapshot labels get. Columns: label_at, as_of, count."""
    _, panel = plt.subplots(figsize=(7, 3))
    panel.scatter(steps["label_at"], pd.to_datetime(steps["as_of"]), s=steps["count"] / 4, color=MAIN, linewidths=0)
    ends = [steps["label_at"].min(), steps["label_at"].max()]
    panel.plot(ends, ends, color=OTHER, linewidth=1)
    panel.set_xlabel("time of the label")
    panel.set_title("Which snapshot a label gets (size: labels)")
    panel.tick_params(axis="x", rotation=30)
    plt.show()


def draw_gains(scores: Mapping[str, pd.DataFrame], reached: str, calibrated: str) -> None:
    """Draw the share of positives among the best scores, and the share of positives by score. Columns: label, score."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4))
    for (name, frame), color in zip(scores.items(), (MAIN, OTHER), strict=True):
        best = frame.sort_values("score", ascending=False)["label"].cumsum().to_numpy()
        left.plot(np.arange(1, len(best) + 1) / len(best), best / best[-1], color=color, label=name)
        tenths = frame.groupby(pd.qcut(frame["score"].rank(method="first"), 10)).mean(numeric_only=True)
        right.plot(tenths["score"], tenths["label"], "o-", color=color, markersize=4, linewidth=1)
    for panel, title, label in ((left, reached, "share of users, best first"), (right, calibrated, "mean score")):
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        panel.set_title(title)
        panel.set_xlabel(label)
    left.legend(frameon=False)
    plt.show()


def draw_shares(shares: Floats, rows: Sequence[str], columns: Sequence[str], lines_after: Sequence[int]) -> None:
    """Draw shares as shades, with a line below some rows."""
    _, panel = plt.subplots(figsize=(6, 3.8))
    panel.imshow(shares, cmap="Oranges", vmin=0, aspect="auto")
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xticks(range(len(columns)), columns, rotation=30)
    for row in lines_after:
        panel.axhline(row + 0.5, color=OTHER, linewidth=1)
    panel.set_title("Share of events by kind")
    plt.show()


def draw_users(unit_ND: Floats, leading: NDArray[np.int64], kinds: Sequence[str], num: pd.Series) -> None:
    """Draw a map of users twice: by their leading kind (-1: none), and by the logarithm of the number ``num``."""
    x, y = flat_map(unit_ND)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for kind, name in [*enumerate(kinds), (-1, "nothing")]:
        color, own = FAINT if kind < 0 else plt.get_cmap("tab10")(kind), leading == kind
        left.scatter(x[own], y[own], s=9, color=color, label=name, linewidths=0)
    left.legend(frameon=False, markerscale=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    left.set_title("Leading kind, last four weeks")
    points = right.scatter(x, y, s=9, c=np.log10(1 + num.to_numpy(float)), cmap="viridis", linewidths=0)
    figure.colorbar(points, ax=right, label=f"log10(1 + {num.name})")
    right.set_title("Activity")
    for panel in (left, right):
        _without_ticks(panel)
    plt.show()


def draw_movement(cosines: Mapping[int, Floats], stranger: float, label: str) -> None:
    """Draw the quartiles of users' cosines with themselves, by age in days, next to the cosine of another user."""
    low, middle, high = np.array([np.percentile(values, [25, 50, 75]) for values in cosines.values()]).T
    _, panel = plt.subplots(figsize=(6, 2.8))
    panel.fill_between([*cosines], low, high, color=PALE, linewidth=0, label="middle half of users")
    panel.plot([*cosines], middle, "o-", color=MAIN, markersize=4, label="median")
    panel.axhline(stranger, color=OTHER, linewidth=1, label="another user, same day")
    panel.set_xlabel(label)
    panel.set_title("Cosine of users with themselves")
    panel.legend(frameon=False)
    plt.show()


def draw_drift(by_date: pd.DataFrame, limits: Mapping[str, float]) -> None:
    """Draw each drift metric by date in a panel of its own, with its limit as a dashed line."""
    width = 4
    _, panels = plt.subplots(-(-len(by_date.columns) // width), width, figsize=(10, 5.4), sharex=True, squeeze=False)
    days = [f"{day:%d %b}" for day in pd.to_datetime(by_date.index)]
    for panel, name in zip(panels.flat, by_date, strict=False):
        values, limit = by_date[name], limits[name]
        panel.plot(days, values, color=OTHER, linewidth=1, zorder=1)
        panel.scatter(days, values, s=14, color=[MAIN if value > limit else OTHER for value in values], zorder=2)
        panel.axhline(limit, color=MAIN, linewidth=1, linestyle=(0, (4, 3)))
        panel.set_ylim(0, 1.15 * max(limit, values.max()))
        panel.set_title(f"{name}: {values.iloc[-1]:.2g} of {limit:g}", fontsize=9)
        panel.set_xticks([0, len(days) - 1])
    for panel in panels.flat[len(by_date.columns) :]:
        panel.axis("off")
    plt.show()


def draw_agreement(correlations: Mapping[str, Floats], shared: Mapping[str, float]) -> None:
    """Draw the correlation of each number with that of the old vector, and the share of shared nearest neighbors."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), width_ratios=[3, 2])
    for (name, values), color in zip(correlations.items(), (OTHER, MAIN), strict=True):
        left.plot(range(1, len(values) + 1), values, "o-", color=color, markersize=3, linewidth=0.8, label=name)
    left.axhline(0, color=FAINT, linewidth=1)
    left.set_xlabel("place in the vector")
    left.set_title("Correlation of new vectors with old ones")
    left.set_ylim(-1.05, 1.05)
    left.legend(frameon=False, loc="lower left", ncols=2)
    bars = right.barh([*shared][::-1], [*shared.values()][::-1], color=[MAIN, OTHER])
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.set_xlim(0, 1.12)
    right.set_title("Same ten nearest neighbors")
    plt.show()


def _without_ticks(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
