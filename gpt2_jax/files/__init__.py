"""Bytes on disks and in buckets: whole writes, paths, locks, full disks, optional packages."""
