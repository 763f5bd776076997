//! The real executable against a real etcd and kube-apiserver.

#[path = "../harness"]
mod harness {
    pub mod access;
    pub mod account;
    pub mod certificates;
    pub mod cluster;
    pub mod endpoints;
    pub mod etcd;
    pub mod faulty;
    pub mod link;
    pub mod namespace;
    pub mod object;
    pub mod pod;
    pub mod poller;
    pub mod processes;
    pub mod program;
    pub mod server;
    pub mod sidecar;
    pub mod target;
    pub mod updates;
    pub mod usage;
    pub mod wait;
    pub mod web;
    pub mod witness;
    pub mod workspace;
}

mod access;
mod atomicity;
mod attacks;
mod brake;
mod bump;
mod check;
mod confinement;
mod conflicts;
mod content;
mod credentials;
mod disk;
mod doctor;
mod endpoints;
mod etcd;
mod faults;
mod haproxy;
mod hooks;
mod images;
mod input;
mod k8s_sidecar;
mod layout;
mod manifests;
mod nginx;
mod once;
mod outage;
mod processes;
mod program;
mod prune;
mod readme;
mod recipes;
mod rollback;
mod scale;
mod selection;
mod set;
mod soak;
mod sync;
mod time;
mod traefik;
