"""Answer one request from a loaded release: checks, online features, histories, batches and scores."""
