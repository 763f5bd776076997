pub mod config;
pub mod content;
pub mod object;
pub mod path;
pub mod plan;
pub mod source;
pub mod store;
