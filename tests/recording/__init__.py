"""What the package computes and logs from fixed seeds, through its public names only, so that it can be compared later."""
