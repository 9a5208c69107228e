"""What a file from elsewhere is and who vouches for it, found out before anything executes it."""
