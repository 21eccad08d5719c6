//! What a confined process can and cannot do: tried out in processes of their own, and with the program.

mod bounds;
mod program;
