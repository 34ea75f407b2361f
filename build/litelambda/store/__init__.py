"""The artifact store as its publishers see it: versions, aliases, and writes that never undo another's."""
