"""The items of generated logs, which come and go. Uses NumPy only; days are numbered from the log's first day (0)."""

import numpy as np
from numpy.typing import NDArray

from userrep.synthetic.draws import Ints, Keys, keys_of, uniform
from userrep.synthetic.log_spec import LogSpec

NEVER = 1 << 40  # day number of death of an item that is sold forever
Flags = NDArray[np.bool_]


class Catalog:
    """The items: genre, life and popularity. Item i is sold on the days ``[born[i], died[i])``.

    Popularity falls with the rank in the genre (Zipf). The most popular item of each genre is always sold. Cost:
    O(items) time and memory, independent of the number of days.
    """

    def __init__(self, spec: LogSpec) -> None:
        self.keys = keys_of(spec.seed, 1, np.arange(spec.num_items))
        order = np.argsort(self.keys, kind="stable")
        position = np.empty(spec.num_items, dtype=np.int64)
        position[order] = np.arange(spec.num_items)
        self.genre, rank = position % spec.num_genres, position // spec.num_genres
        self.evergreen = order[: spec.num_genres]

        is_new = (uniform(self.keys, "is new") < 0.3) & (rank > 0)
        age = 400 + (600 * uniform(self.keys, "age")).astype(np.int64)
        self.born = np.where(is_new, (spec.num_days * uniform(self.keys, "born")).astype(np.int64), -age)
        is_mortal = (uniform(self.keys, "is mortal") < 0.4) & (rank > 0)
        life = 7 + (spec.num_days * uniform(self.keys, "life")).astype(np.int64)
        self.died = np.where(is_mortal, np.maximum(self.born, 0) + life, NEVER)

        # One inverse distribution function for all genres: genre g owns (g, g + 1].
        self._items = np.lexsort((rank, self.genre))
        mass = (1.0 + rank[self._items]) ** -spec.popularity_exponent
        ends = np.cumsum(np.bincount(self.genre, minlength=spec.num_genres)) - 1
        total = np.cumsum(mass)
        before = np.concatenate([[0.0], total[ends][:-1]])[self.genre[self._items]]
        within = (total - before) / np.add.reduceat(mass, np.concatenate([[0], ends[:-1] + 1]))[self.genre[self._items]]
        within[ends] = 1.0
        self._distribution = self.genre[self._items] + within

    def is_sold(self, items: Ints, days: Ints) -> Flags:
        return np.asarray((self.born[items] <= days) & (days < self.died[items]))

    def drawn_items(self, keys: Keys, genres: Ints, days: Ints) -> Ints:
        """Draw one item per key among those of its genre that are sold on its day, by popularity."""
        items = self.evergreen[genres]
        waiting = np.arange(len(keys))
        for attempt in range(12):  # redrawing unsold items keeps the proportions of the others
            index = np.searchsorted(self._distribution, genres[waiting] + uniform(keys[waiting], f"item {attempt}"))
            candidates = self._items[index]
            is_sold = self.is_sold(candidates, days[waiting])
            items[waiting[is_sold]] = candidates[is_sold]
            waiting = waiting[~is_sold]
        return items
