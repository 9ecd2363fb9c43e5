"""What the unary benchmark compares the gateway with, and the coordinator behind all of them."""
