"""How a run is kept apart from everything else on the machine, and to what it asked for."""
