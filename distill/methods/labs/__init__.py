"""What several experiments share: texts, classes, and models that learn them."""
