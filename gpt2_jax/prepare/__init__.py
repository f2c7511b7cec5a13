"""Text files to token shards: readers, work items, the engines that run them, corpora."""
