"""Which of two basketball teams wins, said in the morning of the game."""
