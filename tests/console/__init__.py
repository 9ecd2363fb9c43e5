"""The console, as a person has it: in a real Chromium, on a real stack."""
