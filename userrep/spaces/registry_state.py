"""The registry as an immutable value: all spaces and consumers, with look-ups. No Spark and no clock."""

from dataclasses import dataclass, field, replace
from datetime import date, datetime

from userrep.errors import UsageError
from userrep.ids import checked_name
from userrep.utc import EPOCH

CANDIDATE, READY, SERVING, RETIRED = "candidate", "ready", "serving", "retired"


def artifact_path(space_id: str, content_hash: str) -> str:
    """Return the path of a space's artifact below ``artifacts_root``.

    The path contains the content hash, so that concurrent trainings with the same id cannot overwrite each other.
    """
    return f"artifacts/spaces/{checked_name(space_id, 'space')}/{checked_name(content_hash, 'artifact')[:16]}"


@dataclass(frozen=True)
class Space:
    """An embedding space. Times are UTC.

    ``last_turn``: number of the space's last promotion, counted over all spaces; 0 if it was never promoted. Negative
    if the space was rolled back: minus the promotion number of the space that serves since. ``maps``: pairs of an
    earlier space's id and the content hash of the map into its coordinates.
    """

    space_id: str
    state: str
    lineage_id: str
    trained_until: date
    content_hash: str
    created_at: datetime
    changed_at: datetime
    last_turn: int = 0
    maps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Consumer:
    """A downstream model that trains on embeddings: pinned to a space, or following the serving one. Times are UTC.

    ``pinned_space_id``: None if the consumer follows "serving". ``ready_for``: the space that it last declared itself
    ready for. ``training_set_id`` and ``snapshot_ids``: the data it was last trained on. ``last_seen_at``: time of its
    last registration, declaration, pin or training set.
    """

    name: str
    owner: str
    registered_at: datetime
    last_seen_at: datetime
    pinned_space_id: str | None = None
    ready_for: str | None = None
    training_set_id: str | None = None
    snapshot_ids: tuple[str, ...] = ()

    @property
    def follows(self) -> bool:
        return self.pinned_space_id is None


@dataclass(frozen=True)
class Registry:
    """All spaces, oldest first, and all consumers, ordered by name.

    ``read_at``: when it was read (UTC), which transitions record as the time of a change.
    """

    spaces: tuple[Space, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    read_at: datetime = field(default=EPOCH, compare=False)

    def with_changed(self, *changed: Space | Consumer) -> "Registry":
        """Return the registry with some spaces and consumers added, or replaced by id and name."""
        spaces = {space.space_id: space for space in (*self.spaces, *changed) if isinstance(space, Space)}
        consumers = {c.name: c for c in (*self.consumers, *changed) if isinstance(c, Consumer)}
        by_age = sorted(spaces.values(), key=lambda space: (space.created_at, space.space_id))
        by_name = sorted(consumers.values(), key=lambda consumer: consumer.name)
        return replace(self, spaces=tuple(by_age), consumers=tuple(by_name))

    @property
    def serving(self) -> Space | None:
        return next((space for space in self.spaces if space.state == SERVING), None)

    @property
    def served_before(self) -> Space | None:
        """The space that a rollback returns to: the last one to serve before the serving space.

        Spaces that are retired or were rolled back are left out.
        """
        earlier = [space for space in self.spaces if space.last_turn > 0 and space.state == READY]
        return max(earlier, key=lambda space: space.last_turn, default=None)

    @property
    def rolled_back_from(self) -> Space | None:
        """The space that the last rollback took out of service; None after a promotion or once it is retired."""
        promotion = self.serving.last_turn if self.serving else 0
        rolled_back = (space for space in self.spaces if space.state == READY and space.last_turn == -promotion)
        return next(rolled_back, None) if promotion else None

    def space(self, space: Space | str | None) -> Space:
        """Return a space by id, or as it is in this registry. None and "serving" return the serving space.

        Raises
        ------
        UsageError
            If the space is unknown, or no space is serving.
        """
        space_id = space.space_id if isinstance(space, Space) else space
        if space_id is None or space_id == SERVING:
            if self.serving is None:
                raise UsageError(
                    "no space is serving. Run `userrep pipeline --as-of DATE` to train and promote the first space, "
                    "or `userrep spaces promote SPACE` to promote one that is ready."
                )
            return self.serving
        known = {space.space_id: space for space in self.spaces}
        if checked_name(space_id, "space") not in known:
            raise UsageError(f"space {space_id}: not in the registry. Known spaces: {', '.join(known) or 'none'}.")
        return known[space_id]

    def consumer(self, name: str) -> Consumer:
        """Return a consumer by name. Raises UsageError, which lists the known consumers, if it is not registered."""
        known = {consumer.name: consumer for consumer in self.consumers}
        if checked_name(name, "consumer") not in known:
            raise UsageError(
                f"consumer {name}: not registered. Known consumers: {', '.join(known) or 'none'}. "
                f"Register it with `userrep consumers register {name} --owner TEAM`."
            )
        return known[name]

    def pinned_to(self, space_id: str) -> list[Consumer]:
        """Return the consumers that are pinned to a space."""
        return [consumer for consumer in self.consumers if consumer.pinned_space_id == space_id]

    def spaces_in_use(self) -> dict[str, str]:
        """Return the ids of the spaces that need a snapshot every day, each with the reason; the serving one first.

        These are the serving space, spaces that consumers are pinned to, ready spaces that were never promoted
        (consumers prepare for them), the space that a rollback returns to, and the space that was rolled back last.
        """
        served_before, reasons_by_space = self.served_before, {}
        for space in sorted(self.spaces, key=lambda space: space.state != SERVING):
            names = ", ".join(consumer.name for consumer in self.pinned_to(space.space_id))
            reasons = [SERVING] if space.state == SERVING else []
            reasons += [f"pinned by {names}"] if names else []
            reasons += ["waits to serve"] if space.state == READY and not space.last_turn else []
            reasons += ["served before"] if space is served_before else []
            reasons += ["rolled back from"] if space is self.rolled_back_from else []
            if reasons:
                reasons_by_space[space.space_id] = "; ".join(reasons)
        return reasons_by_space
