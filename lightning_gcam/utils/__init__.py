"""Tools without any saliency: errors, files, chunks, isolation, and one interface to both Lightning packages."""
