"""The measurements of redis-lb: `scripts/bench` runs them."""
