//! Nothing but tests: see `tests/functional.rs`.
