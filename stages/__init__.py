"""One thin program per DVC stage: it reads its options, calls the library, and writes what comes back."""
