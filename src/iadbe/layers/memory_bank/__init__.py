"""Memory banks: coresets, nearest neighbours, clustering, retrieval, local outlier factor."""
