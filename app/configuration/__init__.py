"""The settings kit of all programs. Each room owns its section; none is defined here."""
