"""How a job runs: the engine, its workers, batches, checkpoints, shards, and what is counted on the way."""
