//! What can go wrong when the kernel is asked.
