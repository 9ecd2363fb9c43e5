"""Jobs: their record and states, the store, and who watches them."""
