//! What is optimised: the hash-grid field, its occupancy grid, parameters and Adam state.
