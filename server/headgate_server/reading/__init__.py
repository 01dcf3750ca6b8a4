"""Reading back what is stored, and proving it unchanged."""
