"""Benchmarks of the deployed handlers: in the real runtime client, beside a floor and peers, in the same run."""
