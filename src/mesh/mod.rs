//! Iso-surface, cleaning, simplification, UV unwrapping and texture baking.
