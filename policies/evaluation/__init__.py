"""What a policy is worth: course runs, distributions, reports, pictures, live view and video."""
