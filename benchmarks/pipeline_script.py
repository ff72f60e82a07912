"""A first run as an expert would script it without this project: the peer of ``pipeline_vs_script``.

DuckDB reads the log and counts, SciPy pools, ``implicit`` factorizes, scikit-learn makes vectors of the titles, a plain
loop trains the network, and the result is Parquet. Everything is in the memory of one process, without a history of
versions and without a way to resume a killed run. The network, its losses and its noise are the pipeline's classes, so
that both sides train the same model. A plan gives the dates, versions and numbers of epochs of the pipeline.

    python -m benchmarks.pipeline_script PLAN.json OUT

prints the seconds of each step as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from userrep.config import Config, load_config
from userrep.features.layout import CLIP, UNKNOWN, InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec, content_modality, counts_of
from userrep.features.targets import MAX_ROW_WEIGHT, TargetLayout
from userrep.items.candidates import MAX_ITEMS
from userrep.model.autoencoder import Autoencoder
from userrep.model.corruption import Corruption, empty_input
from userrep.model.losses import Loss
from userrep.model.propensities import fitted_propensities, used_inputs, used_targets
from userrep.model.standard import standardized_code
from userrep.model.tastes import fitted_tastes
from userrep.model.weights import num_tastes
from userrep.store.arrow import listed

_DAY_US = 86_400_000_000
_CORES = os.cpu_count() or 1
Vectors = dict[str, NDArray[np.float32]]  # by modality: a vector of each item, zeros for items without


class Tiles(NamedTuple):
    """Events by user, item and day, sorted by day; N rows of U users and I items."""

    user_ids: list[str]
    item_ids: list[str]
    user_N: NDArray[np.int32]
    item_N: NDArray[np.int32]
    day_N: NDArray[np.int64]
    num_N: NDArray[np.int64]
    last_us_N: NDArray[np.int64]
    part_N4: NDArray[np.int64]


class Rows(NamedTuple):
    """The users of a date, and their inputs before scaling."""

    user_N: NDArray[np.int64]
    x_NF: NDArray[np.float32]


def main() -> None:
    """Run all steps."""
    plan, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    config = load_config(plan["config"])
    seconds: dict[str, float] = {}
    with timed(seconds, "tiles"):
        tiles = read_tiles(config)
    with timed(seconds, "item_vectors"):
        vectors = item_vectors(config, tiles, [date.fromisoformat(day) for day in plan["versions"]])
    with timed(seconds, "features"):
        attributes = read_attributes(config, tiles.user_ids)
        layout = InputLayout.of(FeatureSpec.of(config), vocabulary(attributes), content_modality(config))

        def features_of(day: str) -> Rows:
            return features(layout, tiles, vectors[plan["version_by_date"][day]], attributes, date.fromisoformat(day))

        with ThreadPoolExecutor(_CORES) as threads:
            rows = dict(zip(plan["as_ofs"], threads.map(features_of, plan["as_ofs"]), strict=True))
    with timed(seconds, "train"):
        candidates = candidates_of(tiles, vectors, layout, plan, days=config.future_days[0], seed=config.training.seed)
        scaler, autoencoder = train(config, layout, rows, plan, candidates)
    with timed(seconds, "embed"):
        out.mkdir(parents=True, exist_ok=True)
        for day in plan["snapshots"]:
            z_ND = encode(autoencoder, scaler.apply(layout, rows[day].x_NF))
            ids = [tiles.user_ids[user] for user in rows[day].user_N]
            dates = [date.fromisoformat(day)] * len(ids)
            table = pa.table({"user_id": ids, "as_of": dates, "embedding": listed(z_ND)})
            pq.write_table(table, out / f"{day}.parquet")
    print(json.dumps(seconds))


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Record the seconds of a step."""
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 3)


def read_tiles(config: Config) -> Tiles:
    """Read the log without duplicates, and count."""
    events = config.events
    assert events.path is not None
    assert events.columns is not None
    names, files = events.columns, f"{events.path}/**/*.parquet" if Path(events.path).is_dir() else events.path
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        found = db.sql(
            f"""
            SELECT user_id, item_id, day, count(*) AS num, max(moment) AS last_us,
                   count_if(hour < 6)::BIGINT AS night, count_if(hour BETWEEN 6 AND 11)::BIGINT AS morning,
                   count_if(hour BETWEEN 12 AND 17)::BIGINT AS afternoon, count_if(hour > 17)::BIGINT AS evening
            FROM (
                SELECT {names.user_id}::VARCHAR AS user_id, {names.item_id}::VARCHAR AS item_id,
                       {names.event_at}::DATE - DATE '1970-01-01' AS day, epoch_us({names.event_at}) AS moment,
                       hour({names.event_at}) AS hour
                FROM (SELECT DISTINCT * FROM read_parquet('{files}'))
            )
            WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND day IS NOT NULL GROUP BY ALL ORDER BY day
            """
        ).to_arrow_table()
    users, user_N = np.unique(found["user_id"].to_numpy().astype(str), return_inverse=True)
    items, item_N = np.unique(found["item_id"].to_numpy().astype(str), return_inverse=True)
    day_N, num_N, last_N = (found[name].to_numpy() for name in ("day", "num", "last_us"))
    part_N4 = np.stack([found[name].to_numpy() for name in ("night", "morning", "afternoon", "evening")], axis=1)
    return Tiles(users.tolist(), items.tolist(), user_N.astype(np.int32), item_N.astype(np.int32), day_N, num_N,
                 last_N, part_N4)  # fmt: skip


def item_vectors(config: Config, tiles: Tiles, versions: list[date]) -> dict[str, Vectors]:
    """Factorize the events before each version, rotate it onto the version before, and describe items by their titles.

    As in userrep, a version starts from the one before, and takes a third of the iterations then. Factors of events
    have length 1, as vectors of titles have.
    """
    als = next(vectors for vectors in config.item_vectors.values() if vectors.kind == "als")
    titles, found, before_ID = content_vectors(config, tiles), {}, None
    for version in versions:
        past = slice(int(np.searchsorted(tiles.day_N, _number(version))))
        shape = (len(tiles.user_ids), len(tiles.item_ids))
        counts = sp.csr_matrix(
            (tiles.num_N[past].astype(np.float32), (tiles.user_N[past], tiles.item_N[past])), shape=shape
        )
        counts.sum_duplicates()
        counts.data = 1 + np.float32(als.alpha) * np.log1p(counts.data)
        iterations = als.iterations if before_ID is None else max(1, als.iterations // 3)  # from the version before
        model = AlternatingLeastSquares(
            factors=als.dim, regularization=als.regularization, iterations=iterations, num_threads=_CORES,
            random_state=als.seed,
        )  # fmt: skip
        if before_ID is not None:
            model.item_factors = 0.1 * before_ID
        with threadpool_limits(1, "blas"):
            model.fit(counts, show_progress=False)
        vector_ID = normalize(model.item_factors)
        vector_ID[np.asarray(counts.sum(axis=0)).ravel() == 0] = 0
        if before_ID is not None:
            vector_ID = (vector_ID @ orthogonal_procrustes(vector_ID, before_ID)[0]).astype(np.float32)
        before_ID = vector_ID
        found[str(version)] = {"behaviour": vector_ID, "content": titles}
    return found


def content_vectors(config: Config, tiles: Tiles) -> NDArray[np.float32]:
    """Return a vector for each item's title."""
    assert config.items is not None
    names = config.items.columns
    table = pq.read_table(config.items.path, columns=[names.item_id, names.text])
    titles = dict(zip(table[0].to_pylist(), table[1].to_pylist(), strict=True))
    texts = [titles.get(item) or "" for item in tiles.item_ids]
    tf_idf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    svd = TruncatedSVD(config.item_vectors["content"].dim, random_state=0)
    return normalize(svd.fit_transform(tf_idf)).astype(np.float32)


def read_attributes(config: Config, user_ids: list[str]) -> dict[str, list[str | None]]:
    """Return the values of each attribute, by user."""
    users = config.users
    if users is None:
        return {}
    table = pq.read_table(users.path, columns=[users.columns.user_id, *users.attributes])
    ids, found = table.column(0).cast(pa.string()).to_pylist(), {}
    for name in users.attributes:
        values = dict(zip(ids, table.column(name).cast(pa.string()).to_pylist(), strict=True))
        found[f"attribute_{name}"] = [values.get(user) for user in user_ids]
    return found


def vocabulary(attributes: Mapping[str, list[str | None]]) -> dict[str, list[str]]:
    """Return the values of one-hot blocks."""
    return {name: [*sorted({v for v in values if v is not None}), UNKNOWN] for name, values in attributes.items()}


def features(
    layout: InputLayout, tiles: Tiles, vectors: Vectors, attributes: Mapping[str, list[str | None]], as_of: date
) -> Rows:
    """Return the inputs of the users that have an event in the longest window before a date; one pass over its tiles.

    Sums are kept by ring, the part of a window that the next shorter one does not hold; windows are sums of rings.
    """
    spec, day = layout.spec, _number(as_of)
    past = slice(*np.searchsorted(tiles.day_N, [day - spec.span, day]))
    age_N, num_N = day - tiles.day_N[past], tiles.num_N[past]
    in_window_N = age_N <= spec.longest
    users, row_N = np.unique(tiles.user_N[past][in_window_N], return_inverse=True)
    place_U = np.full(len(tiles.user_ids), -1)
    place_U[users] = np.arange(len(users))
    row_N, num_users, num_rings = place_U[tiles.user_N[past]], len(users), len(spec.windows)
    is_user_N = row_N >= 0
    ring_N = np.searchsorted(spec.windows, age_N)
    cell_N = (row_N * num_rings + ring_N)[is_user_N]
    weights = sp.csr_matrix(
        (num_N[is_user_N].astype(np.float32), (cell_N, tiles.item_N[past][is_user_N])),
        shape=(num_users * num_rings, len(tiles.item_ids)),
    )
    blocks: dict[str, NDArray[Any]] = {}
    for modality, vector_ID in vectors.items():
        has_I = vector_ID.any(axis=1)
        sums = (weights @ vector_ID).reshape(num_users, num_rings, -1).cumsum(axis=1)
        total = (weights @ has_I.astype(np.float32)).reshape(num_users, num_rings).cumsum(axis=1)
        for k, window in enumerate(spec.windows):
            blocks[f"{modality}_{window}d"] = sums[:, k] / np.maximum(total[:, k : k + 1], 1)
            blocks[f"has_{modality}_{window}d"] = total[:, k] > 0
    events = np.bincount(cell_N, num_N[is_user_N], num_users * num_rings).reshape(num_users, num_rings)
    user_days = np.unique(np.stack([row_N[is_user_N], age_N[is_user_N]]), axis=1)
    day_cells = user_days[0] * num_rings + np.searchsorted(spec.windows, user_days[1])
    days = np.bincount(day_cells, minlength=num_users * num_rings).reshape(num_users, num_rings)
    for k, window in enumerate(spec.windows):
        blocks[f"num_events_{window}d"] = blocks[f"weight_{window}d"] = events[:, : k + 1].sum(axis=1)
        blocks[f"num_active_days_{window}d"] = days[:, : k + 1].sum(axis=1)
    last_us, first = np.zeros(num_users, np.int64), np.zeros(num_users)
    np.maximum.at(last_us, row_N[is_user_N], tiles.last_us_N[past][is_user_N])
    np.maximum.at(first, row_N[in_window_N], age_N[in_window_N])
    blocks["days_since_last_event"], blocks["days_since_first_event"] = (day * _DAY_US - last_us) / _DAY_US, first
    parts = np.stack(
        [np.bincount(row_N[in_window_N], tiles.part_N4[past][in_window_N, k], num_users) for k in range(4)], axis=1
    )
    weekday_N = (tiles.day_N[past][in_window_N] + 3) % 7  # 1970-01-01 was a Thursday
    weekdays = np.bincount(row_N[in_window_N] * 7 + weekday_N, num_N[in_window_N], num_users * 7).reshape(num_users, 7)
    for name, counts in (("part_of_day", parts), ("weekday", weekdays)):
        blocks[f"{name}_{spec.longest}d"] = counts / counts.sum(axis=1, keepdims=True)
    return Rows(users, _laid_out(layout, blocks, attributes, users))


def _laid_out(
    layout: InputLayout,
    blocks: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, list[str | None]],
    users: NDArray[np.int64],
) -> NDArray[np.float32]:
    x_NF = np.zeros((len(users), layout.width), np.float32)
    for block in layout.blocks[:-1]:
        part = x_NF[:, block.start : block.stop]
        if block.kind == "one_hot":
            place = {value: k for k, value in enumerate(layout.vocabulary[block.name])}
            other = place[UNKNOWN]
            part[np.arange(len(users)), [place.get(attributes[block.name][user] or "", other) for user in users]] = 1
        elif block.kind == "scalar":
            part[:, 0] = np.log1p(blocks[block.name])
        else:
            part[:] = blocks[block.name]
        if block.flag is not None:
            x_NF[:, block.flag] = blocks.get(f"has_{block.name}", 1)
    layout.normalize_means(x_NF)
    return x_NF


def train(
    config: Config,
    layout: InputLayout,
    rows: Mapping[str, Rows],
    plan: Mapping[str, Any],
    candidates: Mapping[str, NDArray[np.float32]],
) -> tuple[Scaler, Autoencoder]:
    """Fit scaler, network, propensities and tastes; a twentieth of the users selects the best epoch."""
    torch.set_num_threads(_CORES)
    settings, random = config.training, np.random.default_rng(config.training.seed)
    held_out = random.random(1 + max(int(users.user_N.max()) for users in rows.values())) < settings.held_out_share
    is_train = np.concatenate([~held_out[rows[day].user_N] for day in plan["trained_on"]])
    x_NF = np.concatenate([rows[day].x_NF for day in plan["trained_on"]])
    scaler = Scaler.fit(layout, Moments.of(x_NF[is_train]))
    x_NF = scaler.apply(layout, x_NF, out=x_NF)
    targets, empty_F = TargetLayout.of(layout.spec, config.future_days), empty_input(layout, scaler)
    y_NT = np.concatenate([
        np.hstack([_future(days, layout, scaler, rows, day=day, place=place if days == targets.futures[0] else None)
                   for days in config.future_days])
        for place, day in enumerate(plan["trained_on"])
    ])  # fmt: skip
    autoencoder = Autoencoder(layout, config.model, targets, seed=settings.seed)
    loss = Loss(layout, targets, config.model, candidates, float(y_NT[is_train, targets.items.start].mean()))
    corruption = Corruption(layout, config.model, empty_F, seed=settings.seed)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=settings.learning_rate,
                                  weight_decay=settings.weight_decay)  # fmt: skip
    train_N, size = np.flatnonzero(is_train), settings.batch_size
    steps = len(train_N) // size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.max_epochs, pct_start=0.05
    )
    valid_x, valid_y = (torch.from_numpy(part_N[~is_train][:16_384]) for part_N in (x_NF, y_NT))
    best, best_loss = autoencoder.state_dict(), np.inf
    for epoch in range(1, plan["epochs"] + 1):
        order = random.permutation(train_N)
        for start in range(0, steps * size, size):
            places = order[start : start + size]
            batch_x, batch_y = x_NF[places], torch.from_numpy(y_NT[places])
            noisy = corruption(batch_x, places.astype(np.int64), epoch=epoch)
            optimizer.zero_grad()
            losses = loss(autoencoder(torch.from_numpy(noisy.x_BF)), torch.from_numpy(batch_x), batch_y)
            (losses @ loss.weight_K).backward()
            torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            judged = float(loss(autoencoder(valid_x), valid_x, valid_y) @ loss.weight_K)
        if judged < best_loss:
            best, best_loss = {name: value.clone() for name, value in autoencoder.state_dict().items()}, judged
    used = used_inputs(layout)
    weight_PC, bias_P = fitted_propensities(x_NF[is_train][:, used], y_NT[is_train][:, used_targets(targets)])
    best["propensity_PF"][:, used] = torch.from_numpy(weight_PC.astype(np.float32))
    best["propensity_P"][:] = torch.from_numpy(bias_P.astype(np.float32))
    sample_BF = x_NF[is_train][:16_384]
    weights = standardized_code({name: value.numpy() for name, value in best.items()}, sample_BF)
    weights |= fitted_tastes(
        layout, scaler, sample_BF, num_tastes=num_tastes(layout, targets, config.model),
        latent_dim=config.model.latent_dim, seed=settings.seed,
    )  # fmt: skip
    autoencoder.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return scaler, autoencoder.eval()


def candidates_of(
    tiles: Tiles, vectors: Mapping[str, Vectors], layout: InputLayout, plan: Mapping[str, Any], *, days: int, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Return the items that were sold in the days after each training date, as the loss takes them.

    Of more than ``MAX_ITEMS``, a sample without replacement, in proportion to sales, whose shares are divided by the
    probability of being drawn.
    """
    found: dict[str, NDArray[np.float32]] = {}
    random = np.random.default_rng(seed)
    for place, day in enumerate(plan["trained_on"]):
        start = date.fromisoformat(day)
        end = start + timedelta(days=days)
        first, last = np.searchsorted(tiles.day_N, [_number(start), _number(end)])
        sold_I = np.bincount(tiles.item_N[first:last], tiles.num_N[first:last], minlength=len(tiles.item_ids))
        of_version = vectors[plan["version_by_date"][str(end)]]
        vector_IE = np.hstack([of_version[modality] for modality in layout.spec.modalities])
        items = np.flatnonzero((sold_I > 0) & vector_IE.any(axis=1))
        share_C = sold_I[items].astype(np.float64)
        if len(items) > MAX_ITEMS:
            key_C = random.exponential(size=len(items)) / share_C
            limit = np.partition(key_C, MAX_ITEMS)[MAX_ITEMS]
            kept_C = key_C < limit
            items, share_C = items[kept_C], share_C[kept_C] / -np.expm1(-share_C[kept_C] * limit)
        found[f"vector_{place}"] = vector_IE[items].astype(np.float32)
        found[f"log_share_{place}"] = np.log(share_C / max(share_C.sum(), 1)).astype(np.float32)
    return found


def _future(
    days: int, layout: InputLayout, scaler: Scaler, rows: Mapping[str, Rows], *, day: str, place: int | None
) -> NDArray[np.float32]:
    """Return what the users of a date do in the days after it: their window on the date on which these end.

    ``place``: of the date among those of the training; only then there are vectors.
    """
    now, later = rows[day], rows[str(date.fromisoformat(day) + timedelta(days=days))]
    block = {block.name: slice(block.start, block.stop) for block in layout.blocks}
    parts, absent = [], []
    names = counts_of(days)
    if place is not None:
        pooled_NE = np.hstack([later.x_NF[:, block[f"{modality}_{days}d"]] for modality in layout.spec.modalities])
        weight_N1 = np.minimum(np.expm1(later.x_NF[:, block[names[0]]]), MAX_ROW_WEIGHT)
        weight_N1 *= pooled_NE.any(axis=1, keepdims=True)
        parts = [pooled_NE, weight_N1, np.full_like(weight_N1, place)]
        absent = [np.zeros(sum(part.shape[1] for part in parts))]
    for name in names:
        center, scale = scaler.center_F[block[name]], scaler.scale_F[block[name]]
        parts.append(np.clip((later.x_NF[:, block[name]] - center) / scale, -CLIP, CLIP))
        absent.append(np.clip(-center / scale, -CLIP, CLIP))
    y_NW = np.hstack([*parts, np.ones((len(later.user_N), 1))])
    found = np.tile(np.concatenate([*absent, [0.0]]), (len(now.user_N), 1))
    at = np.searchsorted(later.user_N, now.user_N)
    at[at == len(later.user_N)] = 0
    is_active = (later.user_N[at] == now.user_N) & (later.x_NF[at, block[names[0]].start] > 0)
    found[is_active] = y_NW[at[is_active]]
    return found.astype(np.float32)


def encode(autoencoder: Autoencoder, x_NF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors of scaled rows."""
    with torch.inference_mode():
        return np.concatenate([
            autoencoder.encode(torch.from_numpy(x_NF[k : k + 1024])).numpy() for k in range(0, len(x_NF), 1024)
        ])  # fmt: skip


def _number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


if __name__ == "__main__":
    main()
