"""From many runs to tables: a SQL index, comparisons, rankings, significance tests, published numbers."""
