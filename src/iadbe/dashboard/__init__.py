"""The pages of the results server: a module and a template for each, on top of the API's functions."""
