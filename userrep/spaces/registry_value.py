"""The registry as a value: all spaces and consumers, and what can be asked of them. No Spark and no clock."""

from dataclasses import dataclass
from datetime import date, datetime

from userrep.errors import UsageError
from userrep.ids import checked_name

CANDIDATE, READY, SERVING, RETIRED = "candidate", "ready", "serving", "retired"


def artifact_path(space_id: str, content_hash: str) -> str:
    """Return the path of a space's artifact below ``artifacts_root``.

    It is named by the content hash: of two trainings that were given one id, neither overwrites the other's artifact.
    """
    return f"artifacts/spaces/{checked_name(space_id, 'space')}/{checked_name(content_hash, 'artifact')[:16]}"


@dataclass(frozen=True)
class Space:
    """An embedding space. Times in UTC.

    ``last_turn``: the running number of its last promotion, 0 before the first; of a space that a rollback has left,
    that of the space which the rollback has led to, below zero. ``maps``: content hashes of its maps into earlier
    spaces' coordinates, by these spaces' ids.
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

    @property
    def artifact(self) -> str:
        """The path of its artifact below ``artifacts_root``."""
        return artifact_path(self.space_id, self.content_hash)


@dataclass(frozen=True)
class Consumer:
    """Someone who trains on embeddings: pinned to a space, or following the one that serves (no pin). Times in UTC.

    ``ready_for``: the space that it has last declared itself ready for. ``training_set_id`` and ``snapshot_ids``: what
    it was last trained on. ``last_seen_at``: its last registration, declaration, pin or training set.
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
    """All spaces, oldest first, and all consumers, by name."""

    spaces: tuple[Space, ...] = ()
    consumers: tuple[Consumer, ...] = ()

    @property
    def serving(self) -> Space | None:
        return next((space for space in self.spaces if space.state == SERVING), None)

    @property
    def served_before(self) -> Space | None:
        """The space that served last before the one that serves now: where a rollback leads.

        Those aside that are retired, or that a rollback has left.
        """
        earlier = [space for space in self.spaces if space.last_turn > 0 and space.state == READY]
        return max(earlier, key=lambda space: space.last_turn, default=None)

    @property
    def rolled_back_from(self) -> Space | None:
        """The space that the last rollback has left, until one is promoted or it is retired."""
        turn = self.serving.last_turn if self.serving else 0
        left = (space for space in self.spaces if space.state == READY and space.last_turn == -turn)
        return next(left, None) if turn else None

    def space(self, space_id: str | None) -> Space:
        """Return a space by id; the one that serves for None or "serving".

        Raises
        ------
        UsageError
            If there is no such space, or none serves.
        """
        if space_id in (None, SERVING):
            if self.serving is None:
                raise UsageError(
                    "no space is serving. `userrep pipeline` trains one and promotes it where nothing serves; "
                    "`userrep spaces promote SPACE` promotes one that is ready."
                )
            return self.serving
        assert space_id is not None
        checked_name(space_id, "space")
        found = next((space for space in self.spaces if space.space_id == space_id), None)
        if found is None:
            known = ", ".join(space.space_id for space in self.spaces) or "none"
            raise UsageError(f"space {space_id}: not in the registry; spaces there are: {known}.")
        return found

    def consumer(self, name: str) -> Consumer:
        """Return a consumer by name. Raises UsageError if there is none, with those there are."""
        checked_name(name, "consumer")
        found = next((consumer for consumer in self.consumers if consumer.name == name), None)
        if found is None:
            known = ", ".join(consumer.name for consumer in self.consumers) or "none"
            raise UsageError(
                f"consumer {name}: not registered; consumers there are: {known}. "
                f"`userrep consumers register {name} --owner TEAM` registers it."
            )
        return found

    def space_of(self, consumer: Consumer) -> Space:
        """Return the space that a consumer uses now. Raises UsageError if it follows and none serves."""
        return self.space(consumer.pinned_space_id)

    def pinned_to(self, space_id: str) -> list[Consumer]:
        """Return the consumers that are pinned to a space."""
        return [consumer for consumer in self.consumers if consumer.pinned_space_id == space_id]

    def spaces_in_use(self) -> dict[str, str]:
        """Return the spaces that need a snapshot every day, with the reason: the one that serves first.

        Also those that consumers are pinned to, those that wait to serve (consumers get ready on them), the one that a
        rollback leads to, and the one that the last rollback has left.
        """
        back, reasons = self.served_before, {}
        for space in sorted(self.spaces, key=lambda space: space.state != SERVING):
            names = ", ".join(consumer.name for consumer in self.pinned_to(space.space_id))
            why = [SERVING] if space.state == SERVING else []
            why += [f"pinned by {names}"] if names else []
            why += ["waits to serve"] if space.state == READY and not space.last_turn else []
            why += ["served before"] if space is back else []
            why += ["rolled back from"] if space is self.rolled_back_from else []
            if why:
                reasons[space.space_id] = "; ".join(why)
        return reasons
