//! One conformance suite for every custody backend, then what is particular to each.

mod file;
mod pkcs11;
mod softhsm;
mod suite;
