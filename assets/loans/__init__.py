"""Whether a loan will be repaid, judged when it is applied for."""
