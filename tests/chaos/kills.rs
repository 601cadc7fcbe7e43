//! Workers that are killed at random.
