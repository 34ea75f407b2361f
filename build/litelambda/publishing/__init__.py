"""Publishing: the comparison with what is served now, the report, and the version in the store."""
