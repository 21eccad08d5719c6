//! One conformance suite for every custody backend, then what is particular to each.

mod file;
mod pkcs11;
mod pkcs11_habits;
mod pkcs11_keys;
mod pkcs11_outages;
mod pkcs11_processes;
mod pkcs11_sealed;
mod softhsm;
mod suite;
