"""Feature maps: views, patches, embeddings, channel selection, and maps of anomaly scores."""
