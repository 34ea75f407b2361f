"""What a function must do again when it is restored from a snapshot; imported only under SnapStart.

A restored environment shares its memory with every other one of the same snapshot: connections are dead, credentials
may have expired. Nothing random is kept in memory here: canaries are drawn from the kernel, for each request.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.store import Store

__all__ = ["register"]


def register(store: Store) -> None:
    """Have the store connect again after each restore.

    `snapshot_restore_py` is part of the managed runtime from Python 3.12 on.
    """
    from snapshot_restore_py import register_after_restore

    register_after_restore(store.reopen)
