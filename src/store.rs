//! The only writer below the directory.

mod spool;

pub use spool::{ContentWriter, Modes, Spool, Spooled};
