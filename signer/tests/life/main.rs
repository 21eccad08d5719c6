//! The life of a key, as an operator meets it: real programs in a directory of their own.

mod backup;
mod import;
mod look;
mod rewrap;
mod site;
