"""One file per kind of upstream."""
