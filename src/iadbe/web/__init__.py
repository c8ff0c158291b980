"""The results server: a JSON API and pages over the store, for people and for programs."""
