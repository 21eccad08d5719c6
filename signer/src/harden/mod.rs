//! What the process gives up: privileges and dumps before it touches a secret ([`process()`]), pages that could be swapped,
//! dumped or overrun for its secrets ([`memory`]), and at last nearly everything else that a program may do
//! ([`confine`]).

pub mod confine;
mod landlock;
pub mod memory;
mod plan;
mod process;
mod seccomp;

pub use process::process;
