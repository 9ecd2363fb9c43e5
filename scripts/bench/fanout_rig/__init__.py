"""The parts of the fan-out benchmark: who emits, who serves, who watches, who measures."""
