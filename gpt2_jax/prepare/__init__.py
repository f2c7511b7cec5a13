"""Turns text into token shards: input formats, work items, engines, named corpora."""
