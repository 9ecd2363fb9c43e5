"""What things cost against how many there are."""
