"""Bytes on disks and in buckets: atomic writes, paths, locks, full disks, optional packages."""
