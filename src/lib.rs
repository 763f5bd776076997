pub mod config;
pub mod content;
pub mod object;
pub mod source;
pub mod store;
