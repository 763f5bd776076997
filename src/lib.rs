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
pub mod run;
pub mod source;
pub mod store;

// The program that configbump runs, if it was asked to.
pub mod child;

// What goes through it.
pub mod content;
pub mod event;
pub mod object;
pub mod path;

// What everybody needs.
mod disk;
pub mod telemetry;
