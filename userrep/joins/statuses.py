"""Statuses of joined labels, and metadata keys of joined vectors, with and without Spark."""

# Metadata keys of a vector column: the space whose coordinates the vectors are in, and the space they were mapped from.
SPACE_ID, MAPPED_FROM = "userrep_space_id", "userrep_mapped_from"

# Statuses of labels with a vector:
FOUND = "found"  # from the snapshot of the label's time
IN_SAMPLE = "in_sample"  # the same, with an as-of date before the space's ``trained_until``
UPDATE = "update"  # a near-real-time vector
NEW_USER = "new_user"  # the space's vector of a user without any data
# Statuses of labels without a vector:
NOT_IN_SNAPSHOT = "not_in_snapshot"
NO_SNAPSHOT_YET = "no_snapshot_yet"
SNAPSHOT_EXPIRED = "expired"  # the snapshot of the label's time was deleted by retention
TOO_OLD = "too_old"
NULL_USER, NULL_TIME = "null_user", "null_time"
