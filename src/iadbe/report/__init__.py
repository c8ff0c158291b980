"""The HTML report: one self-contained page with the summary, charts, tables and images."""
