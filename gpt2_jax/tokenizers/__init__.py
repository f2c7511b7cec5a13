"""Converts text to token ids and back: GPT-2's byte-pair encoding and others, bytes, characters."""
