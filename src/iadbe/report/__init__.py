"""The report: one self-contained HTML page that answers the question, with charts and images."""
