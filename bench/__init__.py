"""Side by side with the peers: `python -m bench` (or `make bench`)."""
