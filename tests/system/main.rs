//! The real executable against a real etcd and kube-apiserver.

#[path = "../harness"]
mod harness {
    pub mod access;
    pub mod account;
    pub mod certificates;
    pub mod cluster;
    pub mod link;
    pub mod namespace;
    pub mod object;
    pub mod pod;
    pub mod program;
    pub mod server;
    pub mod sidecar;
    pub mod target;
    pub mod wait;
    pub mod web;
    pub mod workspace;
}

mod access;
mod atomicity;
mod bump;
mod conflicts;
mod content;
mod credentials;
mod disk;
mod haproxy;
mod hooks;
mod input;
mod layout;
mod manifests;
mod nginx;
mod once;
mod outage;
mod program;
mod prune;
mod readme;
mod selection;
mod sync;
