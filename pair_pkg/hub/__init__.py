"""The one writer to the network: what may leave this machine, and how it is brought to the Hub and checked there."""
