//! The store and the leadership against a real Postgres, started by each test for itself.

mod deposits;
mod events;
mod known;
mod leader;
mod measure;
mod model;
mod payments;
mod proxy;
mod server;
mod store;
mod views;
