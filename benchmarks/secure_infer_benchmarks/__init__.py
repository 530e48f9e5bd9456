"""Benchmarks: what encrypted inference costs, as ratios to plaintext on the same server in the same run."""
