"""Where arrays live: processes, the device mesh, sharding rules and what a chip can do."""
