"""Data sets on disk: their layouts, their pairs, and which of them are held out. Nothing here needs torch."""
