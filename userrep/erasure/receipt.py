"""The receipt of an erasure as text."""

from collections.abc import Mapping
from typing import Any

from userrep.errors import plural


def receipt_lines(receipt: Mapping[str, Any]) -> list[str]:
    """Format a receipt as text."""
    if "is_idle" in receipt:
        return ["nothing to do: no request is open"]
    lines = []
    if receipt["request_id"]:
        num_known = receipt["num_users"] - receipt["num_new"]
        known = f", {num_known:,} already forgotten" if num_known else ""
        users = f"{plural(receipt['num_users'], 'user')}, {receipt['num_with_rows']:,} of them with rows{known}"
        lines.append(f"request {receipt['request_id']}: {users}")
    lines += [f"{table}: {plural(rows, 'row')} deleted" for table, rows in receipt["rows"].items()]
    lines += [f"training set {name}: rows of its snapshots were deleted" for name in receipt["training_sets"]]
    lines += [f"export {path}: {result}" for path, result in receipt["exports"].items()]
    if receipt["online"] is not None:
        lines.append(f"online store: {receipt['online']:,} vectors deleted")
    lines += [f"stream {name}: {result}" for name, result in receipt["streams"].items()]
    lines += [
        f"running at the same time: {run}. It may write back rows that it read earlier. When it has ended, run "
        "`userrep forget` again, with --now to remove everything at once"
        for run in receipt["under_way"]
    ]
    if receipt["kept_until"] is None:
        lines.append("older versions of the tables: removed")
    elif receipt["rows"]:
        lines.append(
            f"older versions of the tables: readable until {receipt['kept_until']:%Y-%m-%d %H:%M} UTC, removed by the "
            "next `userrep forget` after that"
        )
    if receipt["num_done"]:
        lines.append(f"finished requests: {receipt['num_done']}")
    return lines
