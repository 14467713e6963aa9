"""The law of the capacity gap: is there a best teacher size for a student, and does it grow with it?"""
