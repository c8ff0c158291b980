"""What is read out of many runs: an index that can be deleted, comparisons, rankings, tables, published numbers."""
