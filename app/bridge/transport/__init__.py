"""How calls travel: the channel's wrappers, and reads over a connection of our own."""
