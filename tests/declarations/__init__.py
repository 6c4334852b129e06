"""Models that only tests declare, in folders as a fork would write them."""
