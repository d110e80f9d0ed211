"""All that a candidate's process loads; nothing else of refdcn."""
