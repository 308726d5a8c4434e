"""From files to batches: records, datasets, samplers, loaders."""
