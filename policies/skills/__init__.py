"""Which bundle drives, and how one takes over from another."""
