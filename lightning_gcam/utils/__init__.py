"""Tools that know nothing of saliency: errors, files, chunks, isolation, and both Lightning packages as one."""
