"""What the package computes and logs from fixed seeds, through its public names only, to be compared later."""
