"""Decides where arrays live: processes, the device mesh, sharding rules, and what chips can do."""
