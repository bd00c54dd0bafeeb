"""Which card payments are fraud, judged as they come in."""
