//! The life of a key, as an operator meets it: real programs in a directory of their own.

mod aws;
mod backup;
mod folders;
#[allow(dead_code, reason = "shared with the tests of the AWS backends, which use more of it")]
#[path = "../custody/aws/http.rs"]
mod http;
mod import;
mod look;
#[allow(dead_code, reason = "shared with the tests of the AWS backends, which use more of it")]
#[path = "../custody/aws/moto.rs"]
mod moto;
mod rewrap;
mod site;
