"""What the scheduler's decisions cost, and what comes of them."""
