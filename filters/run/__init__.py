"""Runs: plan, steps, engine, workers, ledger, shards, manifest, verification."""
