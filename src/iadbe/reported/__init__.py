"""Published numbers as data: one CSV file per publication, read by :mod:`iadbe.results.published`."""
