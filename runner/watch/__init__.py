"""What a job does, for those who watch it: recorded, reported, counted, logged and traced."""
