"""What every request over the network has in common: how it is retried, what answers mean."""
