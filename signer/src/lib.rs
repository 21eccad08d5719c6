//! The signer: keys behind rules.
//!
//! - [`custody`]: where keys come from, one file a backend, one trait;
//! - [`keys`]: derivation, and signing with what was derived;
//! - [`rules`]: what is refused; plain functions over plain data, no IO, no clock;
//! - [`guard`]: the durable record of what was signed, validated and revoked;
//! - [`service`]: gRPC: authenticate, authorise, rules, guard, sign, audit;
//! - [`config`], [`harden`], [`health`]: what the program around it needs.

pub mod config;
pub mod custody;
pub mod guard;
pub mod harden;
pub mod health;
pub mod keys;
pub mod rules;
pub mod service;
