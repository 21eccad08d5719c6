//! What a confined process can and cannot do, and what it keeps: tried out in processes of their own, and with the program.

mod bounds;
mod commands;
mod memory;
mod program;
mod unit;
