//! Room not yet furnished.
