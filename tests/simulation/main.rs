//! The simulation as CI runs it.
