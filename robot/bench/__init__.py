"""What `barkour bench onboard` measures: times of the loop, and every fault it must survive."""
