"""What the measurements stand on: processes on cores of their own, upstreams, load, and what came of it."""
