"""What follows a failed phase test: its protocol, with deadlines, and what is done at once."""
