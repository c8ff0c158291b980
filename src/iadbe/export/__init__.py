"""A fitted detector as one file that runs without IADBE's training stack."""
