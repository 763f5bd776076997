//! Keeps a directory in step with the ConfigMaps and Secrets that a label selector picks.
//!
//! One straight pipeline, which [`run`] wires: a [`source`] reports [`event`]s, the [`plan`] says what each changes, the
//! [`store`] changes it on disk. A value travels along as a [`content`]. ARCHITECTURE.md has the whole picture.

// What was typed, and what was meant.
pub mod cli;
pub mod config;

// The pipeline.
pub mod bump;
pub mod plan;
pub mod publish;
pub mod run;
pub mod source;
pub mod store;

// The programs that configbump runs, if it was asked to: its own, and those that it waits for.
pub mod child;
pub mod command;

// Whether all of that would go well.
pub mod doctor;

// What goes through it.
pub mod content;
mod crypto;
pub mod event;
pub mod object;
pub mod path;

// What everybody needs.
mod disk;
mod printable;
mod resolver;
pub mod telemetry;
pub mod threads;

// For tests.
#[cfg(test)]
#[path = "../tests/harness/default_signals.rs"]
mod default_signals;
#[cfg(test)]
mod fuzz;
