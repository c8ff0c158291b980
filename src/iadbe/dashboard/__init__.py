"""The pages over a results server: each a file with its template, on the API's own functions."""
