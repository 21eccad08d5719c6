//! The AWS backends, through the real SDKs over real HTTP: the conformance suite of every backend against moto, then what is
//! particular to each; a proxy before moto shows what moto cannot.

mod chain;
mod deployed;
mod http;
mod kms;
mod moto;
mod program;
mod proxy;
mod secrets_manager;
#[allow(dead_code)] // Some of it is for tokens.
#[path = "../suite.rs"]
mod suite;
mod world;
