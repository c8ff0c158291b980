"""The results server: a JSON API over one store. The pages over it are in :mod:`iadbe.dashboard`."""
