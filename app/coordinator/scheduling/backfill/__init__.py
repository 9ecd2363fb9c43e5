"""Who may pass others that wait, without delaying them."""
