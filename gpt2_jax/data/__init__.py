"""Turns token shards into batches: shard files, meta.json, loaders, mixtures, documents."""
