"""AutoDistil: students of many sizes learn together, and one is chosen without training (arXiv 2201.12507)."""
