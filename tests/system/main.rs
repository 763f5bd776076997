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
    pub mod server;
    pub mod sidecar;
    pub mod wait;
    pub mod workspace;
}

mod access;
mod atomicity;
mod conflicts;
mod content;
mod credentials;
mod disk;
mod input;
mod layout;
mod manifests;
mod once;
mod outage;
mod prune;
mod readme;
mod selection;
mod sync;
