"""Reports: what the points of a sweep have shown, as tables, charts, pages and records."""
